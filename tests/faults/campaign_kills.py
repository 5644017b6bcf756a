"""Trainings that are killed, at any moment and at every operation on a file, and resumed.

After each kill the same command with ``--resume`` has to go on from the newest whole checkpoint, and what
the training leaves at its end has to be what an undisturbed one leaves: last and best checkpoint, bit for
bit, their scores, and no other files.
"""

import functools
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import fork_server
from fork_server import Run
from outcome import Fault, Outcome, Place, faults_of
from shared import Shared, cache, training
from work_dirs import Ending, logged_iterations, whole_checkpoints

ITERATIONS = 12
SEED = 4  # the score rises at four validations and falls at the last two: the best is not the last
KILLS = 4  # of one training, one after the other


def start(
    place: Place,
    ranks: int,
    *more: str,
    workers: int = 0,
    interval: int = 1,
    iterations: int = ITERATIONS,
    output: str = "output.txt",
    prepare: Callable[[], None] | None = None,
) -> Run:
    """Start the training that meets faults, in the folder ``work`` of ``place``."""
    options = (f"train_dataloader.num_workers={workers}",)
    arguments = training(
        *(place.shared.data, place.folder / "work", iterations, *options),
        seed=SEED,
        interval=interval,
        more=more,
    )
    return fork_server.start(
        *("train", arguments, place.folder / output),
        ranks=ranks,
        variables=cache(place.shared.trained),  # the data are checked once
        prepare=prepare,
    )


def undisturbed(
    shared: Shared, ranks: int, workers: int = 0, iterations: int = ITERATIONS
) -> tuple[Ending, float]:
    """What the training leaves when nothing happens to it, and its seconds."""

    def run() -> tuple[Ending, float]:
        folder = shared.root / f"undisturbed-{ranks}-{workers}-{iterations}"
        begin = time.monotonic()
        place = Place(folder, Random(0), 0, shared)
        running = start(place, ranks, workers=workers, iterations=iterations)
        status = running.wait(300)
        if status != 0:
            raise RuntimeError(f"an undisturbed training ended with status {status}:\n{running.text()}")
        return Ending.of(folder / "work", running.text()), time.monotonic() - begin

    return shared.once(f"undisturbed {ranks} {workers} {iterations}", run)


def kill_anywhere(run: Run, work_dir: Path, random: Random, seconds: float) -> None:
    """At any moment of a run, its start included."""
    sleep_while(run, random.uniform(0, seconds))


def kill_in_training(run: Run, work_dir: Path, random: Random, seconds: float) -> None:
    """While it trains, validates and writes."""
    until(run, lambda: "Iter(train)" in run.since_start())
    sleep_while(run, random.uniform(0, 0.7))


def kill_at_a_file(run: Run, work_dir: Path, random: Random, seconds: float) -> None:
    """When the work dir's files have just changed: at a temporary file, a new name, one that is gone."""
    until(run, lambda: "Iter(train)" in run.since_start())
    for _ in range(random.randrange(1, 8)):
        names = _names(work_dir)
        until(run, lambda names=names: _names(work_dir) != names, every=0.0003)
    sleep_while(run, random.choice((0, 0, random.uniform(0, 0.01))))


MOMENTS = (kill_in_training, kill_at_a_file, kill_anywhere, kill_at_a_file)


def _names(work_dir: Path) -> list[str]:
    return os.listdir(work_dir) if work_dir.is_dir() else []


def until(run: Run, seen: Callable[[], bool], every: float = 0.01, seconds: float = 300) -> bool:
    """Wait until ``seen()``, or the run or the time has ended; whether it was seen."""
    end = time.monotonic() + seconds
    while not seen():
        if not run.alive() or time.monotonic() > end:
            return seen()
        time.sleep(every)
    return True


def sleep_while(run: Run, seconds: float) -> None:
    end = time.monotonic() + seconds
    while run.alive() and time.monotonic() < end:
        time.sleep(min(0.01, seconds))


def kills(place: Place, ranks: int) -> Outcome:
    """Several kills of one training."""
    _, seconds = undisturbed(place.shared, ranks)
    work_dir = place.folder / "work"
    wrong: list[str] = []
    lost = newest = 0
    for number in range(KILLS):
        run = start(place, ranks, *(("--resume",) if number else ()))
        moment = place.random.choice(MOMENTS)
        moment(run, work_dir, place.random, seconds)
        _end(run, place.random)
        before, newest = newest, max(whole_checkpoints(work_dir), default=0)
        lost += _lost(run.since_start(), before, newest, wrong)
        wrong += [f"kill {number}: {one}" for one in faults_of(run.since_start(), 0) if ranks == 1]
    return finished(place, ranks, newest, wrong, lost, KILLS)


def finished(
    place: Place,
    ranks: int,
    newest: int,
    wrong: list[str],
    lost: int = 0,
    tries: int = 1,
    workers: int = 0,
    interval: int = 1,
) -> Outcome:
    """Go on to the end, and compare it with one that nothing has disturbed."""
    run = start(place, ranks, "--resume", workers=workers, interval=interval)
    status = run.wait(place.seconds)
    text = run.since_start()
    lost += _lost(text, newest, max(whole_checkpoints(place.folder / "work"), default=0), wrong)
    wrong += faults_of(text, status, allowed=(0,))
    if status != 0:
        return Outcome("not resumed", wrong, lost, tries)
    ending = Ending.of(place.folder / "work", text)
    wrong += ending.untrue(ITERATIONS, interval=2)
    # Several processes average the statistics of their batch norms at every checkpoint. Checkpoints that come
    # more rarely, and one more for a signal, make other statistics.
    statistics = ranks == 1 or interval == 1
    wrong += ending.unlike(undisturbed(place.shared, ranks, workers)[0], statistics)
    return Outcome("resumed", wrong, lost, tries)


def _end(run: Run, random: Random) -> None:
    """Kill all processes at once, or one rank, after which the launcher ends the others."""
    if len(run.processes) > 1 and random.random() < 0.5:
        run.signal(signal.SIGKILL, random.randrange(len(run.processes)))
        run.wait(20)
    run.kill()


def _lost(text: str, before: int, after: int, wrong: list[str]) -> int:
    """Finished iterations that are gone.

    Args:
        text: output of a run.
        before: the newest whole checkpoint when it began.
        after: the same when it ended.
        wrong: gets what was lost.
    """
    logged = logged_iterations(text)
    lost = 0
    if logged and logged[0] <= before:
        wrong.append(f"went on at iteration {logged[0]}, although the checkpoint of {before} is whole")
        lost = before - logged[0] + 1
    # A finished iteration has its checkpoint before the next one ends.
    finished = max(before, logged[-1] - 1) if logged else before
    if after < finished:
        wrong.append(f"iteration {finished} was finished, the newest whole checkpoint is of {after}")
        lost += finished - after
    return lost


def die_at(number: int, folder: str) -> None:
    """Kill this process at its operation of that number on a file below ``folder``."""
    count = 0

    def see(event: str, arguments: tuple) -> None:
        nonlocal count
        if not _changes_a_file(event, arguments, folder):
            return
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(see)


def count_to(path: str, folder: str) -> None:
    """Write, for each operation on a file below ``folder``, its name to the file ``path``."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def see(event: str, arguments: tuple) -> None:
        if _changes_a_file(event, arguments, folder):
            os.write(log, f"{event} {arguments[0]}\n".encode())

    sys.addaudithook(see)


def _changes_a_file(event: str, arguments: tuple, folder: str) -> bool:
    if event == "open":
        path, _, flags = arguments
        changes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    else:
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
        path = arguments[0] if changes else ""
    return changes and isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(folder)


def operations(shared: Shared) -> int:
    """How many operations on files the undisturbed training makes."""

    def run() -> int:
        place = Place(shared.root / "operations", Random(0), 0, shared)
        log = place.folder / "operations.txt"
        running = start(place, 1, prepare=functools.partial(count_to, str(log), str(place.folder / "work")))
        if running.wait(120) != 0:
            raise RuntimeError(running.text())
        return len(log.read_text().splitlines())

    return shared.once("operations", run)


def kill_at_operation(place: Place) -> Outcome:
    """A kill at one operation on a file, that of the trial's number."""
    number, work_dir = place.number + 1, place.folder / "work"
    run = start(place, 1, prepare=functools.partial(die_at, number, str(work_dir)))
    if run.wait(place.seconds) != -signal.SIGKILL:
        return Outcome("not killed", [f"there is no operation {number}: {run.text()[-300:]}"])
    return _after_one(place, run)


def stop_growing(size: int) -> None:
    """Kill this process when a file grows above ``size`` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def kill_in_a_file(place: Place) -> Outcome:
    """A kill after so many bytes of a checkpoint, which is the largest file."""
    run = start(place, 1)
    wanted = place.random.randrange(1, 8)
    until(run, lambda: bool(logged_iterations(run.text())) and logged_iterations(run.text())[-1] >= wanted)
    run.kill()
    size = place.random.randrange(100_000, 1_700_000)
    run = start(place, 1, "--resume", prepare=functools.partial(stop_growing, size))
    if run.wait(place.seconds) != -signal.SIGXFSZ:
        return Outcome("not killed", [f"{size} bytes were not reached: {run.text()[-300:]}"])
    return _after_one(place, run)


def _after_one(place: Place, run: Run) -> Outcome:
    newest, wrong = max(whole_checkpoints(place.folder / "work"), default=0), []
    lost = _lost(run.since_start(), 0, newest, wrong)
    return finished(place, 1, newest, wrong, lost)


FAULTS = [
    Fault("kill -9, one process", 120, functools.partial(kills, ranks=1), each=KILLS),
    Fault("kill -9, two processes", 80, functools.partial(kills, ranks=2), each=KILLS),
    Fault("kill -9 at each file operation", operations, kill_at_operation),
    Fault("kill -9 in the middle of a file", 20, kill_in_a_file),
]
