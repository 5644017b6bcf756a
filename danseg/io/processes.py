"""Which processes of this machine live, and in which state they are.

Ids are given again, so that the birth tells which process is meant.
"""

import os
from pathlib import Path

_WORDS = {
    "T": "stopped (state T; kill -CONT lets it go on)",
    "t": "stopped by a debugger (state t)",
    "D": "blocked in the system (state D: a disk or a network file system that does not answer)",
    "R": "computing (state R)",
    "S": "waiting (state S)",
}


def boot() -> str:
    """What tells this start of the machine from others; '' where there is no /proc."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def born(pid: int) -> int:
    """When a process started, in the kernel's ticks since the start of the machine; 0 if unknown."""
    try:
        # Its second field, the name in brackets, may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def started(pid: int) -> float:
    """When a process started, in seconds since 1970, to a second or so; 0 if unknown."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        since = next(float(line.split()[1]) for line in lines if line.startswith("btime "))
    except (OSError, StopIteration, ValueError):
        return 0.0
    ticks = born(pid)
    return since + ticks / os.sysconf("SC_CLK_TCK") if ticks else 0.0


def parent_and_state(pid: int) -> tuple[int, str]:
    """The parent's pid and the letter of the state; ``(0, "")`` if there is no such process, or no /proc."""
    try:
        # The name in brackets may hold anything.
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return 0, ""
    return int(parent), state


def state_in_words(state: str) -> str:
    """A letter of :func:`parent_and_state`, explained."""
    return _WORDS.get(state, f"in state {state}")


def alive(pid: int, birth: int = 0) -> bool:
    """Whether there is a process ``pid``, with this :func:`born` unless that is 0 or unknown now.

    One that has ended, and whose parent has not asked how, is dead.
    """
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # another user's
    except (OSError, OverflowError):
        return False
    return parent_and_state(pid)[1] not in ("Z", "X") and (not birth or born(pid) in (0, birth))
