"""Several processes: they end well, two runs share no folder, and nothing waits without a word."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from campaign_kills import ITERATIONS, SEED, finished, sleep_while, start, undisturbed, until
from child_process import ROOT, environment
from outcome import Fault, Outcome, Place, faults_of
from shared import cache, training
from work_dirs import Ending, logged_iterations, whole_checkpoints


def two_processes(place: Place) -> Outcome:
    """A run of two processes, every tenth through torchrun itself."""
    reference, _ = undisturbed(place.shared, 2)
    if place.number % 10 == 9:
        status, text = _with_torchrun(place)
        kind = "ended, torchrun"
    else:
        run = start(place, 2)
        status, text = run.wait(place.seconds), run.text()
        kind = "ended"
    wrong = faults_of(text, status, allowed=(0,))
    if status == 0:
        ending = Ending.of(place.folder / "work", text)
        wrong += ending.untrue(ITERATIONS, interval=2) + ending.unlike(reference)
    return Outcome(kind, wrong)


def _with_torchrun(place: Place) -> tuple[int | None, str]:
    arguments = training(place.shared.data, place.folder / "work", ITERATIONS, seed=SEED)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    command = [sys.executable, *launcher, ROOT / "tools" / "train.py", *arguments, "--launcher", "pytorch"]
    output = place.folder / "output.txt"
    with output.open("wb") as file:
        done = subprocess.run(
            list(map(str, command)),
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=place.folder,
            timeout=place.seconds,
            env=environment(CUDA_VISIBLE_DEVICES="", **cache(place.shared.trained)),
        )
    return done.returncode, output.read_text()


LONGER = 150  # iterations: more than the second training waits for a lock that may be a dead one's


def one_folder(place: Place) -> Outcome:
    """Two trainings in one folder: one goes on undisturbed, the other says whose it is."""
    reference, seconds = undisturbed(place.shared, 1, iterations=LONGER)
    runs = [start(place, 1, iterations=LONGER, output="first.txt")]
    if place.random.random() < 0.7:
        sleep_while(runs[0], place.random.uniform(0, seconds / 4))
    # The folder is another run's, whether the second says --resume or not.
    more = ("--resume",) if place.random.random() < 0.5 else ()
    runs.append(start(place, 1, *more, iterations=LONGER, output="second.txt"))
    ended = [(run.wait(place.seconds), run.text()) for run in runs]
    statuses = [status for status, _ in ended]
    wrong = [one for status, text in ended for one in faults_of(text, status)]
    if sorted(statuses, key=str) != [0, 1]:
        return Outcome("both or none", [*wrong, f"statuses {statuses}"])
    winner = statuses.index(0)
    refused = ended[1 - winner][1]
    message = next((line for line in refused.splitlines() if line.startswith("error: ")), "")
    pid = runs[winner].processes[0].pid
    if str(pid) not in message:
        wrong.append(f"the other run, process {pid}, is not named: {message}")
    ending = Ending.of(place.folder / "work", ended[winner][1])
    wrong += ending.untrue(LONGER, interval=2) + ending.unlike(reference)
    return Outcome("one went on", wrong)


PATIENCE = 0.1  # minutes


def stopped(place: Place, what: str) -> Outcome:
    """A data worker or a rank is stopped, or a rank killed, in the middle of a training of two processes."""
    ranks, workers = (1, 2) if what == "worker" else (2, 0)
    more = ("--patience", str(PATIENCE))
    run = start(place, ranks, *more, workers=workers)
    until(run, lambda: bool(logged_iterations(run.text())))
    sleep_while(run, place.random.uniform(0, 0.5))
    begin = time.monotonic()
    rank = place.random.randrange(ranks)
    if what == "worker":
        victims = _children(run.processes[0].pid)
        for victim in place.random.sample(victims, len(victims)):  # one alone may not be needed any more
            os.kill(victim, signal.SIGSTOP)
    else:
        run.signal(signal.SIGKILL if what == "killed rank" else signal.SIGSTOP, rank, group=False)
    if what == "killed rank":
        status = run.wait(60)
        wrong = ["hang"] if status is None else []
        newest = max(whole_checkpoints(place.folder / "work"), default=0)
        return finished(place, ranks, newest, wrong)
    named = until(run, lambda: _says(run.since_start(), what, rank), seconds=PATIENCE * 60 * 4 + 20)
    waited = time.monotonic() - begin
    for process in run.processes:
        for victim in (*_children(process.pid), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGCONT)
    run.kill()
    if not named:
        return Outcome("no word", [f"hang: no word in {waited:.0f} s about a stopped {what}"])
    wrong = [one for one in faults_of(run.since_start(), 0) if "hang" not in one]
    newest = max(whole_checkpoints(place.folder / "work"), default=0)
    return finished(place, ranks, newest, wrong, workers=workers)


def _says(text: str, what: str, rank: int) -> bool:
    lines = [line.lower() for line in text.splitlines() if "Iter(" not in line]
    if what == "worker":
        return any("worker" in line and ("stop" in line or "wait" in line) for line in lines)
    return any(f"rank {rank}" in line for line in lines)


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:  # it has ended
        return []
    return list(map(int, text.split()))


FAULTS = [
    Fault("two processes, no fault", 50, two_processes),
    Fault("two trainings in one folder", 20, one_folder),
    Fault("stopped data worker", 3, functools.partial(stopped, what="worker")),
    Fault("stopped rank", 3, functools.partial(stopped, what="rank")),
    Fault("killed rank", 10, functools.partial(stopped, what="killed rank")),
]
