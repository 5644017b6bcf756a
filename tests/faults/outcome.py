"""What a trial of a fault gives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from shared import Shared


@dataclass
class Outcome:
    """How one trial ended.

    Attributes:
        kind: in a word or two, what happened, for counting.
        wrong: what should not have happened; empty if all is as promised.
        lost: finished iterations that are gone.
        tries: how many faults it was; several where one run meets one after the other.
    """

    kind: str
    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    tries: int = 1


@dataclass
class Place:
    """Where a trial works, and what it draws from."""

    folder: Path
    random: Random
    number: int
    shared: Shared
    seconds: float = 120.0  # until a command is taken for one that hangs


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        tries: how many the whole campaign makes; or a function that counts what there is to try.
        trial: makes one trial.
        each: how many tries one trial makes.
    """

    name: str
    tries: int | Callable[[Shared], int]
    trial: Callable[[Place], Outcome]
    each: int = 1

    def trials(self, tries: int | None, shared: Shared) -> int:
        """How many trials make so many tries, by default the whole campaign's."""
        if tries is None:
            tries = self.tries(shared) if callable(self.tries) else self.tries
        return -(-tries // self.each)


INTERNAL = ("Traceback (most recent call last)", "panicked at", "Segmentation fault", "core dumped")


def faults_of(text: str, status: int | None, allowed: tuple[int, ...] = (0, 1)) -> list[str]:
    """What is wrong with a command's end, whatever it was given: a hang, an internal stack, a death."""
    if status is None:
        return ["hang"]
    found = [f"internal stack ({_last_line(text)})" for sign in INTERNAL if sign in text][:1]
    if status not in allowed:
        found.append(f"status {status}")
    if status == 1 and "error: " not in text:
        found.append("status 1 without a message")
    return found


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
