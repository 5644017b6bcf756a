"""What the benchmarks' command lines share: the device, the progress bar, the tables and files."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import fastest, report, ways
from benchmarks.measure import environment
from benchmarks.report import Promises, Row
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


def stored_markdown(path: Path, promises: Promises) -> str:
    """A stored result as Markdown: of a GPU's figures, or of a CPU's rows with what is promised of them."""
    try:
        of_gpu = "figures" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        of_gpu = False  # what is wrong with the file, its reader says
    if not of_gpu:
        return report.markdown(report.load(path), promises)
    figures = ways.load(path)
    return f"{fastest.markdown(figures)}\n\n{ways.markdown(figures)}"


def carry_out_on_gpu(
    benchmark: str,
    jobs: Sequence[ways.Job],
    args: argparse.Namespace,
    device: torch.device,
    rates: ways.Rates,
) -> None:
    """Measure within ``args.seconds``, write the results, print which way was the fastest."""
    suffix = "_quick" if args.quick else ""
    fastest.print_fastest(ways.carry_out(benchmark, jobs, device, args.seconds, args.out, rates, suffix))
