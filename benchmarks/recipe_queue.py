"""Run the trainings of the table of recipes: several at a time, within a time limit, until stopped."""

import contextlib
import fcntl
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.recipe_runs import Training
from danseg.errors import UserError
from danseg.io.files import make_folder
from danseg.io.parallel import available_cpus

MOST_WORKERS = 4  # one prepares some 600 of CamVid's images a second, more than a training takes
PATIENCE = 5.0  # seconds that a training has to end itself
CLOSING = 1.0  # seconds until the system has closed the files of a process that was killed
SAVE_EVERY = 10.0  # seconds


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Lock a folder of trainings. They inherit the lock, and hold it if the benchmark alone is killed.

    Raises:
        UserError: another benchmark, or a training that one has left, holds the lock.
    """
    with open(make_folder(folder) / ".lock", "w") as lock:
        until = time.monotonic() + CLOSING
        while not _take(lock.fileno()):
            if time.monotonic() > until:
                raise UserError(
                    f"trainings are running in {folder}: wait for them, end them, or choose another --out"
                )
            time.sleep(0.05)
        yield lock.fileno()


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass
class Limits:
    """How many trainings run at a time, until when, and what each gets.

    Attributes:
        jobs: trainings at a time.
        until: when all are ended, on the clock of ``time.monotonic``; None for never.
    """

    jobs: int
    until: float | None = None

    @property
    def threads(self) -> int:
        return max(1, available_cpus() // self.jobs)

    @property
    def workers(self) -> int:
        """Processes of a data loader: the cores but one of a training's share."""
        return min(MOST_WORKERS, max(1, self.threads - 1))

    def minutes_left(self) -> float:
        return float("inf") if self.until is None else (self.until - time.monotonic()) / 60


def expected_minutes(training: Training, done: Sequence[Training]) -> float | None:
    """How long a training will take, from those that are done, of the same head if there are; else None."""
    of_head = [one for one in done if one.head == training.head] or done
    if not of_head:
        return None
    iterations = of_head[0].outcome.scores["iteration"]
    share = 1 - min(1.0, training.saved_iteration() / iterations)
    return share * statistics.median(one.outcome.minutes for one in of_head)


class Stopped:
    """Whether Ctrl-C or SIGTERM has come; ``signal`` is its number. Use it as a context."""

    signal: int | None = None

    def __enter__(self) -> "Stopped":
        self._before = {one: signal.signal(one, self._note) for one in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.signal = number

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def carry_out(
    trainings: Sequence[Training],
    options: Sequence[str],
    limits: Limits,
    lock: int,
    *,
    discard_checkpoints: bool,
    stopped: Stopped,
    while_waiting: Callable[[], None],
    log: Callable[[str], None],
) -> None:
    """Run the trainings that are not finished, until all are, the time is over or the benchmark is stopped.

    Args:
        trainings: all of the table, in their order. Their outcomes are brought up to date.
        options: more arguments for ``tools/train.py``.
        limits: how many at a time, and until when.
        lock: from :func:`locked`.
        discard_checkpoints: whether to delete those of a finished training.
        stopped: tells of Ctrl-C and SIGTERM.
        while_waiting: called when trainings have started, again and again.
        log: gets a line whenever a training starts or ends.
    """
    waiting = [one for one in trainings if not one.finished]
    running: list[Training] = []
    saved = time.monotonic()
    try:
        while (waiting or running) and stopped.signal is None and limits.minutes_left() > 0:
            done = [one for one in trainings if one.finished]
            while waiting and len(running) < limits.jobs:
                training = waiting.pop(0)
                needed = expected_minutes(training, done)
                if needed is not None and needed > limits.minutes_left():
                    training.outcome.note = f"left out, it needs about {needed:.2g} minutes"
                    log(f"{training.name}: {training.outcome.note}")
                    continue
                again = training.saved_iteration()
                training.start(options, limits.threads, lock)
                running.append(training)
                log(f"{training.name}: {f'goes on after iteration {again}' if again else 'starts'}")
            while_waiting()
            time.sleep(0.1)
            for training in list(running):
                training.look()
                if training.process.poll() is not None:
                    running.remove(training)
                    _close(training, False, discard_checkpoints, log)
            if time.monotonic() - saved > SAVE_EVERY:
                saved = time.monotonic()
                for training in running:
                    training.save()
    finally:
        _end([training.process for training in running])
        for training in running:
            _close(training, True, discard_checkpoints, log)


def _close(training: Training, ended: bool, discard_checkpoints: bool, log: Callable[[str], None]) -> None:
    """Take the results of a process that has ended, or ``ended`` because it had to."""
    training.close(ended)
    outcome = training.outcome
    if training.finished and discard_checkpoints:
        training.discard_checkpoints()
    score = outcome.scores["mIoU"] if outcome.scores else None
    said = outcome.note or ("no mIoU" if score is None else f"mIoU {score:.2f}")
    log(f"{training.name}: {said}; {outcome.minutes:.2g} minutes")


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """End processes, at first with a request, and all that they have started."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
    until = time.monotonic() + PATIENCE
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):  # nobody of its session is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
