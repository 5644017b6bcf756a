"""What the benchmarks' command lines share: the device, the progress bar, the tables and files."""

import argparse
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import report
from benchmarks.report import Promises, Row
from danseg.engine.measuring import environment
from danseg.errors import UserError

Job = tuple[str, float, Callable[[], list[Row]]]  # name, share of the time, function that measures


def require_mmseg() -> None:
    """Refuse at once if mmseg is missing, not after a minute in a child process.

    Raises:
        UserError: mmseg cannot be imported.
    """
    try:
        import mmseg.models  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"this benchmark compares with mmseg, which cannot be imported ({error}); "
            'install it with: pip install -e ".[onedl]"'
        ) from error


def set_up(args: argparse.Namespace) -> tuple[torch.device, int]:
    """Set the number of threads; return the device and the number of rounds that a command line asks for.

    Raises:
        UserError: mmseg or the device is not there.
    """
    require_mmseg()
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this PyTorch sees no CUDA device; use --device cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    return device, args.repeats or (3 if args.quick else 5)


def carry_out(
    benchmark: str,
    jobs: Sequence[Job],
    promises: Promises,
    args: argparse.Namespace,
    device: torch.device,
    repeats: int,
) -> None:
    """Measure with a progress bar, print the tables, write the results."""
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    rows = []
    smallest = min(share for _, share, _ in jobs)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=round(sum(share for _, share, _ in jobs) / smallest))
        for what, share, measure in jobs:
            progress.update(task, description=what)
            rows += measure()
            progress.advance(task, share / smallest)
    about = {**environment(device), **report.versions(), "repeats": repeats}
    report.print_results(rows, promises)
    for path in report.save(benchmark, rows, about, args.out, "_quick" if args.quick else ""):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
