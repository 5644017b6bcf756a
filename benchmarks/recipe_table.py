"""The table of the recipes: a row a network, the IoU of each class, and everything in files."""

import csv
import io
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.recipe_runs import Training
from danseg.io.files import whole_file

MIB = 2**20
COLUMNS = ["network", "seeds", "mIoU", "spread", "least", "most", "minutes", "peak MiB"]


def rows(found: Sequence[Training]) -> list[dict[str, Any]]:
    """One row a training: what it is, what came out, and why not if it is not finished."""
    made = []
    for one in found:
        outcome = one.outcome
        peak = outcome.process_bytes / MIB if outcome.process_bytes else None
        scores = outcome.scores or {}
        made.append(
            {
                "network": one.head,
                "seed": one.seed,
                "finished": one.finished,
                "iterations": scores.get("iteration", one.saved_iteration()),
                "mIoU": scores.get("mIoU"),
                "minutes": outcome.minutes,
                "peak MiB": peak if outcome.device_mib is None else outcome.device_mib,
                "note": "" if one.finished else outcome.note or "left out: no time was left",
                "IoU": {name: each["IoU"] for name, each in scores.get("classes", {}).items()},
            }
        )
    return made


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is there; None of nothing."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def by_network(made: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of finished trainings, by network; an empty list for one that has none."""
    found: dict[str, list[dict[str, Any]]] = {row["network"]: [] for row in made}
    for row in made:
        if row["finished"]:
            found[row["network"]].append(row)
    return found


def summary_cells(made: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Strings for :data:`COLUMNS`, a list a network. The spread is the standard deviation over seeds."""
    cells = []
    for network, done in by_network(made).items():
        scores = [row["mIoU"] for row in done if row["mIoU"] is not None]
        spread = statistics.stdev(scores) if len(scores) > 1 else None
        numbers = [_mean(scores), spread, min(scores, default=None), max(scores, default=None)]
        seeds = " ".join(str(row["seed"]) for row in done) or "–"
        minutes, peak = (_mean([row[key] for row in done]) for key in ("minutes", "peak MiB"))
        cells.append([network, seeds, *(_number(one, ".2f") for one in numbers)])
        cells[-1] += [_number(minutes, ".2f"), _number(peak, ".0f")]
    return cells


def class_cells(made: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Mean IoU of each class over the seeds: the head of the table, and a list of strings a class."""
    networks = {network: done for network, done in by_network(made).items() if done}
    classes = dict.fromkeys(name for done in networks.values() for row in done for name in row["IoU"])
    lines = [
        [name, *(_number(_mean([row["IoU"].get(name) for row in done]), ".2f") for done in networks.values())]
        for name in classes
    ]
    return ["class", *networks], lines


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def notes(made: Sequence[dict[str, Any]], about: dict[str, Any]) -> list[str]:
    """What was measured, and what is missing from the table."""
    iterations = " and ".join(str(n) for n in sorted({row["iterations"] for row in made if row["finished"]}))
    lines = [
        f"{about['set']}: {iterations or 'no'} iterations of {about['batch'] or '?'} images, "
        f"{about['precision']}, {about['jobs']} at a time; {about['device_name']}, torch {about['torch']}, "
        f"mmseg {about.get('mmseg', 'unknown')}, danseg {about['danseg']}. IoU in percent, of the last "
        "validation, the mean over seeds and its standard deviation; peak memory of "
        + ("PyTorch's allocator." if about["device"] == "cuda" else "the process.")
    ]
    return lines + [f"{row['network']} seed {row['seed']}: {row['note']}" for row in made if row["note"]]


def markdown(made: Sequence[dict[str, Any]], about: dict[str, Any]) -> str:
    head, lines = class_cells(made)
    tables = [(COLUMNS, summary_cells(made)), (head, lines)]
    blocks = []
    for names, cells in tables:
        lines = [names, ["---", *["---:"] * (len(names) - 1)], *cells]
        blocks += ["\n".join(f"| {' | '.join(line)} |" for line in lines)] if cells else []
    return "\n\n".join([*blocks, "\n".join(f"- {line}" for line in notes(made, about))]) + "\n"


def print_tables(made: Sequence[dict[str, Any]], about: dict[str, Any], console: Console) -> None:
    for names, cells in ((COLUMNS, summary_cells(made)), class_cells(made)):
        if not cells:
            continue
        table = Table(box=None, padding=(0, 2, 0, 0))
        for index, column in enumerate(names):
            table.add_column(column, justify="right" if index else "left", no_wrap=True)
        for line in cells:
            table.add_row(*line)
        console.print(table)
    for line in notes(made, about):
        console.print(line, highlight=False, soft_wrap=True)


def csv_text(made: Sequence[dict[str, Any]]) -> str:
    """One line a training, with a column for the IoU of each class."""
    classes = list(dict.fromkeys(name for row in made for name in row["IoU"]))
    plain = [key for key in made[0] if key != "IoU"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*plain, *(f"IoU {name}" for name in classes)])
    for row in made:
        writer.writerow([*(row[key] for key in plain), *(row["IoU"].get(name) for name in classes)])
    return buffer.getvalue()


def save(made: Sequence[dict[str, Any]], about: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """Write the table as NAME.json (everything), NAME.csv (a line a training) and NAME.md."""
    paths = []
    for ending, text in (
        ("json", json.dumps({"about": about, "trainings": list(made)}, indent=2) + "\n"),
        ("csv", csv_text(made)),
        ("md", markdown(made, about)),
    ):
        paths.append(folder / f"{name}.{ending}")
        with whole_file(paths[-1]) as part:
            part.write_text(text, encoding="utf-8")
    return paths
