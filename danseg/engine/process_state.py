"""Whether a process of this machine lives, and in which state it is: what the system's /proc tells."""

import os
from pathlib import Path

_WORDS = {
    "T": "stopped (state T; kill -CONT lets it go on)",
    "t": "stopped by a debugger (state t)",
    "D": "blocked in the system (state D: a disk or a network file system that does not answer)",
    "R": "computing (state R)",
    "S": "waiting (state S)",
}


def parent_and_state(pid: int) -> tuple[int, str]:
    """The parent's pid and the letter of the state; ``(0, "")`` if there is no such process, or no /proc."""
    try:
        # The name in parentheses may hold anything.
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return 0, ""
    return int(parent), state


def state_in_words(state: str) -> str:
    """A letter of :func:`parent_and_state`, explained."""
    return _WORDS.get(state, f"in state {state}")


def has_ended(pid: int) -> bool:
    """Whether a process of this machine has ended, even if nobody has asked how."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return parent_and_state(pid)[1] in ("Z", "X")
