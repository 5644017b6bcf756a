"""Carry out trials of faults, count how they end, and report."""

import argparse
import importlib
import json
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import fork_server
from outcome import Fault, Outcome, Place
from shared import Shared

CAMPAIGNS = sorted(path.stem for path in Path(__file__).parent.glob("campaign_*.py"))


@dataclass
class Row:
    """The trials of one fault."""

    fault: str
    tries: int = 0
    survived: int = 0
    lost: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, number: int, outcome: Outcome) -> None:
        self.tries += outcome.tries
        self.survived += max(outcome.tries - len(outcome.wrong), 0)
        self.lost += outcome.lost
        self.kinds = dict(Counter(self.kinds) + Counter({outcome.kind: outcome.tries}))
        self.wrong += [f"{number}: {one}" for one in outcome.wrong]

    def count(self, what: str) -> int:
        """How many faults of one kind there are, such as hangs."""
        return sum(what in one for one in self.wrong)


def all_faults() -> list[Fault]:
    return [fault for name in CAMPAIGNS for fault in importlib.import_module(name).FAULTS]


def carry_out(args: argparse.Namespace) -> int:
    faults = [fault for fault in all_faults() if not args.only or any(o in fault.name for o in args.only)]
    if not faults:
        names = ", ".join(repr(fault.name) for fault in all_faults())
        print(f"error: no fault is named {' or '.join(args.only)}; there are {names}")
        return 2
    root = args.folder or Path(tempfile.mkdtemp(prefix="danseg-faults-"))
    root.mkdir(parents=True, exist_ok=True)
    shared = Shared(Path(tempfile.mkdtemp(prefix="shared-", dir=root)))
    end = time.monotonic() + (args.seconds or float("inf"))
    fork_server.start_server()
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    console = Console()
    try:
        with Progress(*columns, console=console) as progress:
            for fault in faults:
                numbers = args.number or range(fault.trials(args.tries, shared))
                rows.append(_row(fault, numbers, args, root, shared, end, progress))
    finally:
        if args.folder is None:
            shutil.rmtree(root, ignore_errors=True)
    report(rows, console)
    print(f"written: {save(rows, args)}")
    return int(any(row.wrong for row in rows))


def _row(
    fault: Fault,
    numbers: Sequence[int],
    args: argparse.Namespace,
    root: Path,
    shared: Shared,
    end: float,
    progress: Progress,
) -> Row:
    row, task, start = Row(fault.name), progress.add_task(fault.name, total=len(numbers)), time.monotonic()

    def one(number: int) -> tuple[int, Outcome | None]:
        if time.monotonic() > end:
            return number, None
        folder = root / f"{fault.name.replace(' ', '-').replace('/', '-')}-{number}"
        return number, run_trial(fault, number, args.seed, folder, shared, keep=args.folder is not None)

    with ThreadPoolExecutor(args.jobs) as pool:
        for number, outcome in pool.map(one, numbers):
            if outcome is not None:
                row.add(number, outcome)
                for wrong in outcome.wrong:
                    progress.console.print(f"{fault.name} {number}: {wrong}", highlight=False, markup=False)
            progress.advance(task)
    row.seconds = round(time.monotonic() - start, 1)
    return row


def run_trial(
    fault: Fault, number: int, seed: int, folder: Path, shared: Shared, keep: bool = False
) -> Outcome:
    """One trial, in a folder that is there only while it runs, or stays if it fails and ``keep``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        outcome = fault.trial(Place(folder, Random(f"{seed} {fault.name} {number}"), number, shared))
    except Exception:  # noqa: BLE001  (a trial that cannot be made is one that did not survive)
        outcome = Outcome("trial failed", [f"trial failed: {traceback.format_exc()}"])
    if not (keep and outcome.wrong):
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


COLUMNS = ("fault", "tries", "survived", "lost iterations", "hung", "internal stacks", "how they ended")


def cells(row: Row) -> list[str]:
    ended = ", ".join(
        f"{kind} {count}" for kind, count in sorted(row.kinds.items(), key=lambda kind: -kind[1])
    )
    counts = (row.tries, row.survived, row.lost, row.count("hang"), row.count("internal stack"))
    return [row.fault, *map(str, counts), ended]


def report(rows: list[Row], console: Console) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if 0 < index < 6 else "left")
    for row in rows:
        table.add_row(*cells(row))
    Console(width=max(console.width, 130)).print(table)


def save(rows: list[Row], args: argparse.Namespace) -> Path:
    import torch

    from benchmarks import report as reports
    from danseg.engine.measuring import environment

    about: dict[str, Any] = {**environment(torch.device("cpu")), **reports.versions(), "seed": args.seed}
    part = "_part" if args.only or args.tries or args.number or args.seconds else ""
    path = args.out / f"{reports.stem('faults', about, part)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"about": about, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path
