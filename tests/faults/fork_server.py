"""Run danseg's tools in processes that are forked from a server which has imported everything.

An import of torch and mmseg takes seconds, a training of a tiny network less than one. The server is Python's
own (``multiprocessing``'s forkserver), so a trial starts as clean as a new interpreter, in a session of its
own, and ends as an interpreter does, with all that this calls.
"""

import contextlib
import ctypes
import importlib.util
import multiprocessing
import multiprocessing.forkserver
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from child_process import ROOT, environment

HERE = Path(__file__).resolve().parent
CONTEXT = multiprocessing.get_context("forkserver")
# Any of them takes a trial out of its own hands.
OF_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def start_server() -> None:
    """Start the server of all trials, unless one is there."""
    CONTEXT.set_forkserver_preload(["preloaded"])
    before = dict(os.environ)
    # A server is as its environment is when it starts.
    os.environ.update(
        environment(HERE, HERE.parent / "support", CUDA_VISIBLE_DEVICES="", OPENBLAS_NUM_THREADS="1")
    )
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


class Run:
    """A command that was started, with one process or several.

    Attributes:
        output: the file with what it writes to stdout and stderr.
        processes: its processes, by rank.
    """

    def __init__(self, processes: Sequence[Any], output: Path, before: int) -> None:
        self.processes, self.output = processes, output
        self._before = before

    def text(self) -> str:
        """What it and the runs before it have written so far."""
        return self._read(0)

    def since_start(self) -> str:
        """What this run alone has written so far."""
        return self._read(self._before)

    def _read(self, start: int) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self.output.read_bytes()[start:].decode(errors="replace")
        return ""

    def alive(self) -> bool:
        return any(process.exitcode is None for process in self.processes)

    def signal(self, number: int, rank: int | None = None, group: bool = True) -> None:
        """Send a signal to a rank, or to all; with ``group`` to what they started, too."""
        for process in self.processes if rank is None else [self.processes[rank]]:
            # The second is for one that has not made its session yet.
            for send in (os.killpg, os.kill) if group else (os.kill,):
                with contextlib.suppress(ProcessLookupError):
                    send(process.pid, number)

    def kill(self) -> None:
        """End all processes at once, as a power cut does, and wait until they are gone."""
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.join()
        self.signal(signal.SIGKILL)  # what a rank started may outlive it

    def wait(self, seconds: float) -> int | None:
        """The exit status: that of the first rank which failed; None, and all are killed, if time is over.

        Once a rank has failed, the others are ended, as torchrun does.
        """
        end = time.monotonic() + seconds
        while self.alive() and time.monotonic() < end:
            failed = [process.exitcode for process in self.processes if process.exitcode]
            if failed:
                self.signal(signal.SIGTERM)
                for process in self.processes:
                    process.join(10)
                self.kill()
                return failed[0]
            multiprocessing.connection.wait(
                [process.sentinel for process in self.processes if process.exitcode is None], 0.2
            )
        if self.alive():
            self.kill()
            return None
        return next((process.exitcode for process in self.processes if process.exitcode), 0)


def start(
    tool: str,
    arguments: Sequence[object],
    output: Path,
    *,
    ranks: int = 1,
    prepare: Callable[[], None] | None = None,
    variables: dict[str, str] | None = None,
) -> Run:
    """Start a tool: ``start("train", [config, "--resume"], output)``.

    Args:
        tool: its name in tools/, without the suffix.
        arguments: of its command line.
        output: the file for what it writes; it works in this file's folder.
        ranks: number of processes, which get what torchrun would tell them.
        prepare: called in the process before the tool; it has to pickle.
        variables: of the environment.
    """
    start_server()
    launched: list[dict[str, str]] = [{}]
    arguments = [str(argument) for argument in arguments]
    if ranks > 1:
        arguments += ["--launcher", "pytorch"]
        shared = dict(WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
        launched = [dict(shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(ranks)]
    output.parent.mkdir(parents=True, exist_ok=True)
    processes, before = [], output.stat().st_size if output.exists() else 0
    for own in launched:
        process = CONTEXT.Process(
            target=_run, args=(tool, arguments, str(output), {**own, **(variables or {})}, prepare)
        )
        process.start()
        processes.append(process)
    return Run(processes, output, before)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _run(
    tool: str,
    arguments: list[str],
    output: str,
    variables: dict[str, str],
    prepare: Callable[[], None] | None,
) -> None:
    """The process of a trial: become what a shell would have started, and run the tool."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
        stream.reconfigure(line_buffering=True)
    os.close(descriptor)
    os.chdir(Path(output).parent)
    for name in OF_LAUNCHERS:
        os.environ.pop(name, None)
    os.environ.update(variables)
    path = ROOT / "tools" / f"{tool}.py"
    sys.argv = [str(path), *arguments]
    multiprocessing.set_start_method(None, force=True)
    status = 1
    try:
        if prepare is not None:
            prepare()
        spec = importlib.util.spec_from_file_location(f"tools_{tool}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main(arguments)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    # The way on which an interpreter ends: threads, exit handlers, modules.
    ctypes.pythonapi.Py_Exit(status)
