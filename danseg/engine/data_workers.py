"""What the data workers do: which sample each of them prepares, which of them stand still, why one ended.

Every process that prepares a sample notes it, in memory that a loader's process shares with its workers. The
notes are read when a run waits too long, or a worker has ended.
"""

import functools
import os
import re
import signal
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from danseg.datasets.wrappers import inner_datasets
from danseg.engine.failing_samples import files_of
from danseg.errors import UserError
from danseg.io.processes import parent_and_state, state_in_words
from danseg.io.words import ranges

# The columns of a loader's notes; a row a worker, the last one for the loader's own process. Once the sample
# is finished, its time is negative.
_PID, _PART, _INDEX, _TIME = range(4)
_noted_loaders: list[tuple[weakref.ref[DataLoader], torch.Tensor]] = []

_TOLD = 2  # of how many workers a message tells all

# Workers that were killed because they stood still, as a message; None as long as there are none.
_killed_for: str | None = None


@dataclass(frozen=True)
class Worker:
    """A process that prepares samples, as its last note has it."""

    number: int | None  # None: the loader's own process
    pid: int
    state: str  # a letter, as in /proc; "" where that cannot be read
    sample: str  # its files, or its index
    since: float  # seconds since 1970
    busy: bool  # whether the sample is unfinished
    alive: bool

    def __str__(self) -> str:
        who = "this process" if self.number is None else f"data worker {self.number} (pid {self.pid})"
        if self.number is not None and self.state:
            who += f", {state_in_words(self.state)},"
        when = time.strftime("%H:%M:%S", time.localtime(self.since))
        did = f"has been preparing {self.sample} since" if self.busy else f"finished {self.sample} at"
        return f"{who} {did} {when}"


def note_samples(loader: DataLoader) -> None:
    """Let every process that prepares a sample of the loader's data sets note which one, and since when."""
    notes = torch.zeros(loader.num_workers + 1, 4, dtype=torch.float64)
    if loader.num_workers:
        notes.share_memory_()
    for number, part in enumerate(inner_datasets(loader.dataset)):
        if hasattr(part, "prepare_data"):
            part.prepare_data = functools.partial(_prepare_noted, notes, number, part.prepare_data)
    _noted_loaders[:] = [one for one in _noted_loaders if one[0]() is not None]
    _noted_loaders.append((weakref.ref(loader), notes))


def _prepare_noted(notes: torch.Tensor, part: int, prepare: Callable[[int], Any], index: int) -> Any:
    info = get_worker_info()
    row = notes.numpy()[info.id if info else -1]
    row[:] = os.getpid(), part, index if isinstance(index, int) else -1, time.time()
    try:
        return prepare(index)
    finally:
        row[_TIME] = -time.time()


def notes_now() -> bytes:
    """All notes; they differ from an earlier answer if a sample was begun or finished in between."""
    return b"".join(notes.numpy().tobytes() for _, notes in list(_noted_loaders))


def _workers() -> Iterator[Worker]:
    """The processes that have noted a sample, and whether they still live."""
    for reference, notes in list(_noted_loaders):
        loader = reference()
        if loader is None:
            continue
        parts = list(inner_datasets(loader.dataset))
        for number, (pid, part, index, at) in enumerate(notes.tolist()):
            if pid:
                own = pid == os.getpid()
                parent, state = parent_and_state(int(pid))
                alive = own or (parent == os.getpid() and state not in ("Z", "X"))
                sample = _sample(parts[int(part)], int(index))
                yield Worker(None if own else number, int(pid), state, sample, abs(at), at > 0, alive)


def _sample(dataset: Any, index: int) -> str:
    return files_of(dataset, index) if hasattr(dataset, "get_data_info") and index >= 0 else f"sample {index}"


def standing_still() -> list[Worker]:
    """The living workers that hold everything up, once no note has changed for long."""
    return [
        one
        for one in _workers()
        if one.alive and (one.busy or (one.number is not None and one.state in tuple("TtD")))
    ]


def living() -> list[Worker]:
    """The data workers that live, apart from this process."""
    return [one for one in _workers() if one.alive and one.number is not None]


def told(workers: list[Worker]) -> list[str]:
    """A text on each of the workers; of many, on the one that has stood longest, and who the others are."""
    if len(workers) <= _TOLD:
        return [str(one) for one in workers]
    longest = min(workers, key=lambda one: one.since)
    numbers = ranges(one.number for one in workers if one is not longest and one.number is not None)
    return [str(longest), f"data workers {numbers} stand still, too"]


def kill(workers: list[Worker], message: str) -> None:
    """Kill workers, so that the loader that waits for them fails; `explaining_workers` then says ``message``.

    A stopped process is ended by nothing less, and as long as it lives, its parent's interpreter cannot end.
    """
    global _killed_for
    _killed_for = message
    for worker in workers:
        if worker.number is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)


@contextmanager
def explaining_workers() -> Iterator[None]:
    """Say in one line why a data worker ended, or that one had to be ended because it stood still.

    Raises:
        UserError: instead of PyTorch's error about a worker.
    """
    global _killed_for
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = " ".join(_words_on_workers(error))
        if isinstance(error, (OSError, EOFError)) and _in_a_loader(error):
            text = _word_of_handler()  # a batch that is fetched from a worker breaks off before PyTorch looks
        message, _killed_for = _killed_for, None
        if "DataLoader timed out" in text:  # the config's `timeout`
            still = standing_still()
            message = f"{text.strip()}: {'; '.join(told(still)) or 'no worker tells what it does'}"
            kill(still, message)
            _word_of_handler()
            _killed_for = None
        elif message is None and "DataLoader worker" in text:
            message = _why_it_ended(text)
        if message is None:
            raise
        raise UserError(message) from error


def _words_on_workers(error: BaseException | None) -> Iterator[str]:
    """What PyTorch says in the errors that led to this one.

    Its handler of signals raises one wherever the main thread is, in code, too, that makes another one of it.
    """
    while error is not None:
        if isinstance(error, RuntimeError) and "DataLoader" in str(error):
            yield str(error)
        error = error.__cause__ or error.__context__


def _in_a_loader(error: BaseException) -> bool:
    frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(one.co_name == "_get_data" and one.co_filename.endswith("dataloader.py") for one in frames)


def _word_of_handler() -> str:
    """What PyTorch's handler of signals says, once, a moment after a worker has ended."""
    try:
        time.sleep(0.5)
    except RuntimeError as error:
        return str(error)
    return ""


def _why_it_ended(text: str) -> str:
    found = re.search(r"pid(?:\(s\))? ([\d, ]+)", text)
    pids = found[1].strip(", ") if found else ""
    noted = [one.sample for one in _workers() if one.busy and str(one.pid) in pids.split(", ")]
    who = f"data worker (pid {pids})" if pids else "a data worker"
    during = f" while it prepared {', '.join(noted)}" if noted else ""
    name = re.search(r"killed by signal: ([^.]+)", text)
    how = f"was killed by a signal ({name[1]})" if name else "ended without a word"
    if "Bus error" in text:
        advice = (
            "the memory that processes share (/dev/shm) is full: enlarge it (docker run --shm-size=8g or "
            "--ipc=host), or take fewer workers (num_workers of the loader, 0 for none)"
        )
    elif name and "Segmentation fault" in text:
        advice = "a library crashed: look at this sample, or set the loader's num_workers=0 to see where"
    else:
        advice = (
            "mostly the system does that when memory runs out, the machine's or the job's: take fewer "
            "workers (num_workers of the loader) or ask for more memory"
        )
    return f"{who} {how}{during}; {advice}"


def end_workers(loop: Any) -> None:
    """End the data workers of a loop that has run.

    Left to Python's garbage collection, which may free what workers are told by before it tells them to end,
    each of them is waited for five seconds.
    """
    if hasattr(loop, "dataloader_iterator"):
        loop.dataloader_iterator = None
    if getattr(loop, "dataloader", None) is not None:
        loop.dataloader._iterator = None
