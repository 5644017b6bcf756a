"""One training a folder: a lock that names the other training, and that no dead one holds.

The lock is the kernel's (``flock`` on the open file ``.lock``), which lets go when the process dies, however
it dies. The file says who holds it. Its modification time is renewed every few seconds as a sign of life, for
two cases that the kernel of this machine cannot judge: a file system without locks, and another machine that
shares the folder but not the locks.
"""

import contextlib
import datetime
import fcntl
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from danseg.engine.distributed import on_rank_zero
from danseg.engine.work_dir import clear_leftovers
from danseg.errors import UserError, reason_of
from danseg.io.files import make_folder
from danseg.io.processes import alive, boot, born

LOCK = ".lock"
BEAT = 10.0  # seconds between two signs of life
CLOSING = 5.0  # seconds until the system has closed the files of a process that was killed
SILENCE = 3 * BEAT  # seconds without a sign of life after which a run on another machine counts as dead
LEASE = 120.0  # seconds after which file servers let go of the locks of a machine that is gone
LONG_AGO = (
    3600.0  # seconds; signs of life are compared with this machine's clock, which may be a little wrong
)

# Locks that this process holds. A forked child (a data worker) inherits them, and would hold them on after
# the death of this process: it lets go at once.
_held: set[int] = set()


def _let_go_in_child() -> None:
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go_in_child)


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as the lock's file describes it.

    Attributes:
        host: name of its machine.
        boot: what tells this start of the machine from others; '' where there is no /proc.
        pid: its process id.
        born: when the process started, in the kernel's ticks; 0 where there is no /proc.
        since: when it took the lock, in local time.
        command: its command line.
    """

    host: str
    boot: str
    pid: int
    born: int
    since: str
    command: str

    @classmethod
    def this_process(cls) -> "Holder":
        pid, now = os.getpid(), datetime.datetime.now().astimezone()
        command = shlex.join(sys.orig_argv)[:300]
        return cls(socket.gethostname(), boot(), pid, born(pid), now.isoformat(" ", "seconds"), command)

    @classmethod
    def read(cls, file: Path) -> "Holder | None":
        """The holder that ``file`` names; None if it names none, or is just being written."""
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return cls(**{name: kind(content[name]) for name, kind in cls.__annotations__.items()})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    @property
    def here(self) -> bool:
        """Whether it is, or was, a process of this machine since its last start."""
        return (self.host, self.boot) == (socket.gethostname(), boot())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}: {self.command}"


@contextlib.contextmanager
def sole_run(folders: Iterable[str | os.PathLike], log: Callable[[str], None] = print) -> Iterator[None]:
    """Make the folders of a training, lock them during the block, and clear away what killed ones have left.

    Rank 0 does it, and every rank must take part.

    Args:
        folders: the work dir, and others with checkpoints.
        log: gets a warning where a folder cannot be locked, and a word where this has to wait.

    Raises:
        UserError: a folder cannot be made or written to, or a living training holds a lock; the message names
            it.
    """
    with contextlib.ExitStack() as held:

        def take() -> None:
            for folder in folders:
                make_folder(folder, "the work dir", "choose --work-dir")
                held.enter_context(locked(folder, log))
                clear_leftovers(folder)

        on_rank_zero(take)
        yield


@contextlib.contextmanager
def locked(folder: str | os.PathLike, log: Callable[[str], None] = print) -> Iterator[None]:
    """Hold the lock of ``folder``, which exists, during the block.

    Args:
        folder: the folder of a training.
        log: gets a warning where the folder cannot be locked, and a word where this has to wait.

    Raises:
        UserError: a living training holds the lock; the message names it.
    """
    path = Path(folder, LOCK)
    descriptor = _take(path, log)
    if descriptor is None:
        yield
        return
    _held.add(descriptor)
    ended = threading.Event()
    threading.Thread(target=_beat, args=(descriptor, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        if descriptor in _held:  # not in a forked child
            with contextlib.suppress(OSError):
                path.unlink()  # while it is locked, so that it is nobody else's
            _held.discard(descriptor)
            os.close(descriptor)


def _beat(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _take(path: Path, log: Callable[[str], None]) -> int | None:
    """Lock ``path`` and write this process into it; None if the folder takes no locks.

    Raises:
        UserError: a living training holds it.
    """
    began, first, waiting = time.monotonic(), None, False
    while True:
        descriptor, problem = _flock(path)
        holder, last = Holder.read(path), _last_sign(path)
        first = first or last
        waited = time.monotonic() - began
        free = descriptor is not None or problem is not None
        if free and _is_gone(holder, descriptor is not None, first, last, waited):
            break
        if descriptor is not None:
            os.close(descriptor)
        patience = CLOSING if holder is None or holder.here else LEASE
        if last != first or (free and holder and holder.here) or waited > patience:
            raise UserError(
                f"another training runs in {path.parent}: {holder or 'of an unknown process'}. Wait for it "
                "or end it, or choose another --work-dir"
            )
        if not waiting and holder and not holder.here:
            waiting = True
            log(f"{path.parent} was left by {holder}; waiting for a sign of life from there")
        time.sleep(0.1)
    if problem is not None:
        log(f"warning: {path.parent} cannot be locked ({problem}); no other training may use it meanwhile")
    if descriptor is None:
        descriptor = _open(path)
    if descriptor is not None:
        content = json.dumps(asdict(Holder.this_process()), indent=2).encode() + b"\n"
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name, too
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, content, 0)
    return descriptor


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return None


def _flock(path: Path) -> tuple[int | None, str | None]:
    """The descriptor of the locked file, or why the file system takes no locks; both None: it is taken."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        return None, reason_of(error)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
            return descriptor, None
    except (BlockingIOError, FileNotFoundError):
        pass  # taken; or the one before has just removed its file
    except OSError as error:
        os.close(descriptor)
        return None, reason_of(error)
    os.close(descriptor)
    return None, None


def _last_sign(path: Path) -> float:
    """When the file was last changed. Opening it makes a file server's client ask the server again."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return 0.0


def _is_gone(holder: Holder | None, locked: bool, first: float, last: float, waited: float) -> bool:
    """Whether the holder that a lock's file names is dead; ``locked``: this process has got the lock."""
    if holder is None:
        return True
    if holder.here:
        return locked or not alive(holder.pid, holder.born)
    return last == first and (waited > SILENCE or abs(time.time() - last) > LONG_AGO)
