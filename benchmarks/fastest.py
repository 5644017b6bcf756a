"""Which way of those that benchmarks/ways.py compared is the fastest, and where danseg's stands."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.measure import MIB
from benchmarks.ways import Figure, Question

OURS = "danseg"
PLAIN = ("plain", "mmseg")  # what the ways without danseg and without a choice of kernels are called
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
    """The answer to one question. A ratio is None where one of its two times is not known.

    Attributes:
        fastest: of all ways that were measured.
        ours: danseg's figure.
        of_fastest: danseg's time over the fastest way's.
        of_plain: danseg's time over the plain form's.
        memory_of_plain: danseg's extra memory over the plain form's.
    """

    question: Question
    fastest: Figure
    ours: Figure | None
    of_fastest: float | None
    of_plain: float | None
    memory_of_plain: float | None


def verdicts(figures: Sequence[Figure]) -> list[Verdict]:
    """A verdict for each question that has more than one answer, in the order of the figures."""
    answers: dict[Question, list[Figure]] = {}
    for figure in figures:
        if figure.seconds is not None:
            question = Question(figure.case, figure.mode, figure.size, figure.batch, figure.precision)
            answers.setdefault(question, []).append(figure)
    return [_verdict(question, answer) for question, answer in answers.items() if len(answer) > 1]


def _verdict(question: Question, answers: list[Figure]) -> Verdict:
    fastest = min(answers, key=lambda figure: figure.seconds)
    ours = next((figure for figure in answers if figure.way == OURS), None)
    plain = next((figure for figure in answers if figure.way in PLAIN), None)

    def ratio(field: str, other: Figure | None) -> float | None:
        if ours is None or other is None or not getattr(other, field) or getattr(ours, field) is None:
            return None
        return getattr(ours, field) / getattr(other, field)

    return Verdict(
        question,
        fastest,
        ours,
        ratio("seconds", fastest),
        ratio("seconds", plain),
        ratio("extra_bytes", plain),
    )


def _cells(verdict: Verdict) -> list[str]:
    q, ours = verdict.question, verdict.ours

    def number(value: float | None, form: str, unit: float = 1) -> str:
        return "–" if value is None else format(value / unit, form)

    return [
        *(q.case, q.mode, q.size, str(q.batch), q.precision, verdict.fastest.way),
        number(verdict.fastest.seconds, ".3g", 1e-3),
        number(ours and ours.seconds, ".3g", 1e-3),
        number(verdict.of_fastest, ".2f"),
        number(verdict.of_plain, ".2f"),
        number(ours and ours.extra_bytes, ".0f", MIB),
        number(verdict.memory_of_plain, ".2g"),
    ]


def print_fastest(figures: Sequence[Figure]) -> None:
    """Print a line for each question."""
    table = Table(title="The fastest way", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index < 6 else "right", no_wrap=True)
    for verdict in verdicts(figures):
        table.add_row(*_cells(verdict))
    Console(width=max(Console().width, 190)).print(table)


def markdown(figures: Sequence[Figure]) -> str:
    """The same lines as a table in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * 6 + "---:|" * (len(COLUMNS) - 6)]
    lines += ["| " + " | ".join(_cells(verdict)) + " |" for verdict in verdicts(figures)]
    return "\n".join(["**The fastest way**", "", *lines])
