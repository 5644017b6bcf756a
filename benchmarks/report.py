"""What the benchmarks report: rows of danseg beside its peer, as a table, Markdown, CSV and a plot.

Every ratio is danseg's figure over the peer's: below 1 is faster, or smaller.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.arguments import RESULTS
from benchmarks.measure import slug
from danseg.engine.measuring import MIB
from danseg.errors import UserError
from danseg.io.files import whole_file
from danseg.tool_arguments import parse_count
from danseg.version import __version__


@dataclass
class Row:
    """One comparison. What was not measured is None, and ``note`` gives the reason."""

    case: str
    mode: str
    size: str
    positions: int | None = None  # horizontal axis of the plot; None if there is no plot
    theirs_seconds: float | None = None
    ours_seconds: float | None = None
    time_ratio: float | None = None  # of the medians of the rounds
    theirs_extra_bytes: int | None = None
    ours_extra_bytes: int | None = None
    memory_ratio: float | None = None
    floor_seconds: float | None = None
    product_rate: float | None = None  # operations per second
    max_relative_error: float | None = None
    theirs_rounds: list[float] | None = None
    ours_rounds: list[float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Promise:
    """What docs/performance.md promises; None promises nothing.

    Attributes:
        time: at most this ratio of danseg's time to the peer's.
        memory: at most this ratio of danseg's extra memory to the peer's.
        memory_bytes: at most this memory of danseg's, in bytes.
        product_share: at least this share of the machine's matrix-product rate: floor over danseg's time.
    """

    time: float | None = None
    memory: float | None = None
    memory_bytes: float | None = None
    product_share: float | None = None


Promises = dict[tuple[str, str, str], Promise]  # by case, mode and size

COLUMNS = [
    "mode",
    "size",
    "mmseg s",
    "danseg s",
    "time ratio",
    "floor s",
    "mmseg MiB",
    "danseg MiB",
    "memory ratio",
    "difference",
]


def table_cells(rows: list[Row]) -> list[list[str]]:
    """Strings for :data:`COLUMNS`, one list per row."""
    return [
        [
            row.mode,
            row.size,
            _number(row.theirs_seconds, ".3g"),
            _number(row.ours_seconds, ".3g"),
            _number(row.time_ratio, ".2g"),
            _number(row.floor_seconds, ".3g"),
            _number(row.theirs_extra_bytes, ".0f", MIB),
            _number(row.ours_extra_bytes, ".0f", MIB),
            _number(row.memory_ratio, ".2g"),
            _number(row.max_relative_error, ".1e"),
        ]
        for row in rows
    ]


def promises_kept(rows: list[Row], promises: Promises) -> list[str]:
    """One line for each promise that ``rows`` measured: kept or missed, and by how much."""
    lines = []
    for row in rows:
        promise = promises.get((row.case, row.mode, row.size), Promise())
        parts, kept = [], True
        for ratio, most, of_what in (
            (row.time_ratio, promise.time, "the time"),
            (row.memory_ratio, promise.memory, "the extra memory"),
        ):
            if ratio is None or most is None:
                continue
            kept = kept and ratio <= most
            parts.append(f"{ratio:.2g} of {of_what} (promised {most:g} at most)")
        if row.ours_extra_bytes is not None and promise.memory_bytes is not None:
            kept = kept and row.ours_extra_bytes <= promise.memory_bytes
            held, most = row.ours_extra_bytes / 1e9, promise.memory_bytes / 1e9
            parts.append(f"{held:.2f} GB of memory (promised {most:g} GB at most)")
        if row.floor_seconds and row.ours_seconds and promise.product_share is not None:
            share = row.floor_seconds / row.ours_seconds
            kept = kept and share >= promise.product_share
            parts.append(
                f"{share:.2g} of the machine's product rate (promised {promise.product_share:g} at least)"
            )
        if parts:
            verdict = "kept" if kept else "MISSED"
            lines.append(f"{verdict}: {row.mode} {row.size}: {', '.join(parts)}")
    return lines


def markdown(rows: list[Row], promises: Promises) -> str:
    """The results as Markdown: a table for each case, its notes and promises below it."""
    blocks = []
    for name, of_case in _by_case(rows):
        lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * 2 + "---:|" * (len(COLUMNS) - 2)]
        lines += ["| " + " | ".join(cells) + " |" for cells in table_cells(of_case)]
        blocks += [f"**{name}**", "\n".join(lines)]
        blocks += ["\n".join(f"- {line}" for line in _notes(of_case) + promises_kept(of_case, promises))]
    return "\n\n".join(block for block in blocks if block)


def print_results(rows: list[Row], promises: Promises) -> None:
    """Print the tables, with notes and promises below each."""
    # Wider than some terminals: a wrapped line can be read, but a number that is cut short cannot.
    console = Console(width=max(Console().width, 130))
    for name, of_case in _by_case(rows):
        table = Table(title=name, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for index, column in enumerate(COLUMNS):
            table.add_column(column, justify="left" if index < 2 else "right", no_wrap=True)
        for cells in table_cells(of_case):
            table.add_row(*cells)
        console.print(table)
        for line in _notes(of_case) + promises_kept(of_case, promises):
            console.print(line, highlight=False, soft_wrap=True)


def _by_case(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    names = dict.fromkeys(row.case for row in rows)
    return [(name, [row for row in rows if row.case == name]) for name in names]


def _notes(rows: list[Row]) -> list[str]:
    """Each note once, preceded by the rows that it is about."""
    about: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            about.setdefault(row.note, []).append(f"{row.mode} {row.size}")
    return [f"{', '.join(names)}: {note}" for note, names in about.items()]


def _number(value: float | None, form: str, unit: float = 1) -> str:
    return "–" if value is None else format(value / unit, form)


def versions() -> dict[str, str]:
    """Versions of danseg and of the distribution that provides mmseg."""
    found = {"danseg": __version__}
    for name in ("onedl-mmsegmentation", "mmsegmentation"):
        try:
            found["mmseg"] = version(name)
        except PackageNotFoundError:
            continue
        found["mmseg_distribution"] = name
    return found


def stem(benchmark: str, about: dict[str, Any], suffix: str) -> str:
    """The name of a result's files without its ending: the benchmark, the device and the versions."""
    return (
        f"{benchmark}_{about['device']}-{slug(about['device_name'])}"
        f"_torch{about['torch'].split('+')[0]}_mmseg{about.get('mmseg', '')}{suffix}"
    )


def save(benchmark: str, rows: list[Row], about: dict[str, Any], folder: Path, suffix: str) -> list[Path]:
    """Write NAME.json (everything), NAME.csv (the table's numbers) and NAME.png (a plot, if rows have N)."""
    name = stem(benchmark, about, suffix)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}{ending}" for ending in (".json", ".csv", ".png")]
    content = {"about": about, "rows": [asdict(row) for row in rows]}
    paths[0].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    names = [field.name for field in fields(Row) if not field.name.endswith("_rounds")]
    with paths[1].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    if all(row.positions is None for row in rows):
        return paths[:2]
    _plot(rows, f"{about['device_name']}, torch {about['torch']}", paths[2])
    return paths


def store(benchmark: str, about: dict[str, Any], content: dict[str, Any], folder: Path, quick: bool) -> Path:
    """Write NAME.json whole, for a benchmark whose results are no rows; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem(benchmark, about, '_quick' if quick else '')}.json"
    with whole_file(path) as part:
        part.write_text(json.dumps({"about": about, **content}, indent=1) + "\n", encoding="utf-8")
    return path


def load(path: Path) -> list[Row]:
    """The rows of a stored NAME.json."""
    try:
        return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {path} as a benchmark's result ({error}); give a .json file that a benchmark wrote"
        ) from error


def _plot(rows: list[Row], title: str, path: Path) -> None:
    """Plot time and memory against N, with one row of panels per case."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases = _by_case(rows)
    figure = Figure(figsize=(10, 3.6 * len(cases) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)  # opens no window and leaves pyplot's state alone
    panels = figure.subplots(len(cases), 2, squeeze=False)
    for (name, of_case), (time_axes, memory_axes) in zip(cases, panels, strict=True):
        modes = dict.fromkeys(row.mode for row in of_case)
        # A single size makes no line: there the marks tell the modes apart.
        for mode, (style, mark) in zip(modes, (("-", "o"), ("--", "s"), (":", "^")), strict=False):
            of_mode = sorted((row for row in of_case if row.mode == mode), key=lambda row: row.positions)
            for side, label, color in (("theirs", "mmseg", "tab:red"), ("ours", "danseg", "tab:blue")):
                look = {"color": color, "linestyle": style, "marker": mark, "label": f"{label}, {mode}"}
                _line(time_axes, of_mode, f"{side}_seconds", 1, **look)
                _line(memory_axes, of_mode, f"{side}_extra_bytes", MIB, **look)
            look = {"color": "gray", "linestyle": style, "label": f"floor, {mode}"}
            _line(time_axes, of_mode, "floor_seconds", 1, **look)
        time_axes.set(title=f"{name}: time", ylabel="seconds")
        memory_axes.set(title=f"{name}: extra peak memory", ylabel="MiB")
        for axes in (time_axes, memory_axes):
            axes.set(xscale="log", yscale="log", xlabel="positions N = H·W")
            axes.grid(True, which="both", alpha=0.25)
            if axes.lines:
                axes.legend(fontsize="small")
            else:
                axes.set_axis_off()
                axes.set_title("")
    figure.suptitle(title)
    figure.savefig(path, dpi=90)


def _line(axes: Any, rows: list[Row], field: str, unit: float, **look: Any) -> None:
    points = [(row.positions, getattr(row, field) / unit) for row in rows if getattr(row, field) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), **look)


def parser(benchmark: str, description: str) -> argparse.ArgumentParser:
    """A command line with the options that every benchmark has."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}", description=description)
    made.add_argument("--quick", action="store_true", help="small sizes, 3 rounds: a check, not a result")
    made.add_argument("--repeats", type=parse_count, help="timed rounds (default: 5, with --quick 3)")
    made.add_argument("--threads", type=parse_count, help="CPU threads (default: PyTorch's choice)")
    made.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder to write to (default: %(default)s)")
    made.add_argument(
        "--markdown", type=Path, metavar="JSON", help="print a stored result as Markdown, measure nothing"
    )
    return made


def size_name(size: Sequence[int]) -> str:
    """``(97, 97)`` as ``97x97``."""
    return "x".join(map(str, size))
