"""Do the same work on many files in parallel, with a progress bar that estimates the time left."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cpus() -> int:
    """Number of processors that this process may use; on a shared machine, fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def progress_bar(progress: bool = True) -> "Progress":
    """A progress bar on stderr; hidden unless ``progress`` is set and stderr is a terminal."""
    # Not above: the doctor, which counts processors, works without rich and says that it is missing.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    hidden = not (progress and console.is_terminal)  # a bar would clutter a log file
    return Progress(*columns, console=console, transient=True, disable=hidden)


def parallel_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    description: str,
    progress: bool = True,
    pool: Executor | None = None,
) -> list[Result]:
    """Apply ``function`` to every item, several at a time.

    Args:
        function: Called with one item. Threads speed it up if it decodes, compresses or reads files:
            Pillow, OpenCV and zlib release the interpreter's lock.
        items: What to work on.
        description: Shown before the bar.
        progress: Whether to draw the bar, if stderr is a terminal.
        pool: Executor that runs the work; by default one thread per processor. It is shut down at the end.

    Returns:
        The results in the order of ``items``.

    Raises:
        The first exception that ``function`` raised. Items not yet begun are dropped, so that neither an
        error nor Ctrl-C waits for thousands of files.
    """
    pool = pool or ThreadPoolExecutor(available_cpus())
    bar = progress_bar(progress)
    try:
        # Submitted before the bar starts its own thread: a process forked later might inherit a held lock.
        futures = [pool.submit(function, item) for item in items]
        with bar:
            task = bar.add_task(description, total=len(items))
            for future in as_completed(futures):
                future.result()
                bar.advance(task)
    finally:
        pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]
