"""Trainings that are told to stop: SIGTERM, as a cluster sends it, at any moment."""

import functools
import signal

from campaign_kills import ITERATIONS, finished, sleep_while, start, undisturbed, until
from outcome import Fault, Outcome, Place, faults_of
from work_dirs import logged_iterations, whole_checkpoints

RARELY = 1000  # iterations between checkpoints: there are none but those of signals
STOPPED = {signal.SIGTERM: 143, signal.SIGINT: 130}


def stop(place: Place, number: signal.Signals) -> Outcome:
    """One signal at a random moment of the training, to all ranks or to one of two."""
    ranks = 1 + place.number % 2
    _, seconds = undisturbed(place.shared, ranks)
    run = start(place, ranks, interval=RARELY)
    if place.random.random() < 0.8:
        until(run, lambda: bool(logged_iterations(run.text())))
        sleep_while(run, place.random.uniform(0, seconds / 2))
    else:
        sleep_while(run, place.random.uniform(0.3, seconds / 2))
    begun = bool(logged_iterations(run.text()))
    run.signal(number, None if place.random.random() < 0.7 else place.random.randrange(ranks), group=False)
    status, text = run.wait(60), run.since_start()
    logged = logged_iterations(text)
    if status == 0 and logged and logged[-1] == ITERATIONS:
        return Outcome("it was at its end")
    # Before there is anything to save, and once all is saved, a process may die of the signal: a shell calls
    # both 143.
    at_its_end = bool(logged) and logged[-1] == ITERATIONS
    allowed = (STOPPED[number], *((-number,) if at_its_end or not begun else ()))
    wrong = [one for one in faults_of(text, status, allowed) if "without a message" not in one]
    newest = max(whole_checkpoints(place.folder / "work"), default=0)
    last = logged[-1] if logged else 0
    lost = max(last - newest, 0)
    if lost:
        wrong.append(f"iteration {last} was finished, the checkpoint is of {newest}")
    after = finished(place, ranks, newest, wrong, interval=RARELY)
    kind = "stopped with a checkpoint" if newest else "stopped before its first iteration"
    return Outcome(kind if after.kind == "resumed" else after.kind, after.wrong, lost)


FAULTS = [
    Fault("SIGTERM", 50, functools.partial(stop, number=signal.SIGTERM)),
    Fault("SIGINT", 10, functools.partial(stop, number=signal.SIGINT)),
]
