"""Which of the ways that benchmarks/ways.py compares is the fastest, and how far danseg's is from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from danseg.engine.measuring import MIB

if TYPE_CHECKING:
    from benchmarks.ways import Figure

OURS = "danseg"
PLAIN = ("plain", "mmseg")  # what the way that danseg replaces is called
COLUMNS = [
    "case",
    "mode",
    "size",
    "batch",
    "precision",
    "fastest way",
    "ms",
    "danseg ms",
    "of fastest",
    "of plain",
    "MiB",
    "MiB of plain",
]


@dataclass(frozen=True)
class Verdict:
    """The answer to one question. A ratio is None where the plain form's figure is not known.

    Attributes:
        fastest: of all ways that were measured.
        ours: danseg's figure.
        of_fastest: danseg's time over the fastest way's.
        of_plain: danseg's time over the plain form's.
        memory_of_plain: danseg's extra memory over the plain form's.
    """

    fastest: Figure
    ours: Figure
    of_fastest: float
    of_plain: float | None
    memory_of_plain: float | None


def verdicts(figures: Sequence[Figure]) -> list[Verdict]:
    """A verdict for each question that danseg and another way have answered, in the order of the figures."""
    answers: dict[tuple, list[Figure]] = {}
    for figure in figures:
        if figure.seconds is not None:
            question = figure.case, figure.mode, figure.size, figure.batch, figure.precision
            answers.setdefault(question, []).append(figure)
    found = []
    for answer in answers.values():
        ours = next((figure for figure in answer if figure.way == OURS), None)
        if ours is None or len(answer) == 1:
            continue
        fastest = min(answer, key=lambda figure: figure.seconds)
        plain = next((figure for figure in answer if figure.way in PLAIN), None)
        found.append(
            Verdict(
                fastest,
                ours,
                ours.seconds / fastest.seconds,
                ours.seconds / plain.seconds if plain else None,
                ours.extra_bytes / plain.extra_bytes
                if plain and plain.extra_bytes and ours.extra_bytes is not None
                else None,
            )
        )
    return found


def _cells(verdict: Verdict) -> list[str]:
    ours, fastest = verdict.ours, verdict.fastest

    def number(value: float | None, form: str, unit: float = 1) -> str:
        return "–" if value is None else format(value / unit, form)

    return [
        *(ours.case, ours.mode, ours.size, str(ours.batch), ours.precision, fastest.way),
        number(fastest.seconds, ".3g", 1e-3),
        number(ours.seconds, ".3g", 1e-3),
        number(verdict.of_fastest, ".2f"),
        number(verdict.of_plain, ".2f"),
        number(ours.extra_bytes, ".0f", MIB),
        number(verdict.memory_of_plain, ".2g"),
    ]


def print_verdicts(figures: Sequence[Figure]) -> None:
    """Print a line for each question."""
    table = Table(title="The fastest way", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index < 6 else "right", no_wrap=True)
    for verdict in verdicts(figures):
        table.add_row(*_cells(verdict))
    if table.row_count:
        Console(width=max(Console().width, 190)).print(table)


def markdown(figures: Sequence[Figure]) -> str:
    """The same lines as a table in Markdown; nothing where there is none."""
    rows = ["| " + " | ".join(_cells(verdict)) + " |" for verdict in verdicts(figures)]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * 6 + "---:|" * (len(COLUMNS) - 6)]
    return "\n".join(["**The fastest way**", "", *lines, *rows]) if rows else ""
