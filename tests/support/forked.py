"""Run a function as a tool runs, in a process of its own that needs no imports: what it says, its status."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from danseg.errors import command_line


def start(said: Path, run: Callable[..., None], *arguments: Any, **variables: str) -> BaseProcess:
    """Start ``run(*arguments)`` with environment variables; stderr goes to the file ``said``."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(said, run, arguments, variables))
    process.start()
    return process


def _run(said: Path, run: Callable[..., None], arguments: tuple, variables: dict[str, str]) -> None:
    # multiprocessing lets no child of a daemon have children; this one is none, and prints tracebacks itself.
    sys.stderr = said.open("w")
    os.environ.update(variables)
    command_line(run)(*arguments)


def end(process: BaseProcess, seconds: float = 30) -> int | None:
    """The status of a process, which is killed after a time: None if it had to be."""
    until = time.monotonic() + seconds
    while process.exitcode is None:  # join would also wait for its children
        if time.monotonic() > until:
            process.kill()
            return None
        time.sleep(0.02)
    return process.exitcode
