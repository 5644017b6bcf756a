"""Which processes of this machine live. Ids are given again, so that the birth tells which one is meant."""

import os
from pathlib import Path


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


def alive(pid: int, birth: int = 0) -> bool:
    """Whether there is a process ``pid``, with this :func:`born` unless that is 0 or unknown now."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # another user's
    except (OSError, OverflowError):
        return False
    return not birth or born(pid) in (0, birth)
