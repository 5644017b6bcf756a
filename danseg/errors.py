"""Errors that a user can fix, and how a command line reports them.

Code below the tools raises :class:`UserError` (or a plain ``ValueError`` for a bad argument) with a message
that names the value, what is allowed and the fix. Each tool runs inside :func:`command_line`, which prints
only that message and exits with status 1. A user who mistypes a path therefore sees no traceback.
Packages that need mmseg call :func:`require_mmseg`.
"""

import argparse
import contextlib
import errno
import functools
import importlib.util
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from danseg.shipped import as_started


class UserError(Exception):
    """An error that the user can fix; the message says what is wrong and how to fix it."""


class StopsAllError(UserError):
    """An error that the next of many files would meet, too: no room, no permission, too little memory."""


class Stopped(SystemExit):
    """A signal has ended a training: so does the process, with the status that says so, without a traceback.

    The status is 128 + the signal's number, as a shell has it: 143 for SIGTERM, 130 for SIGINT, 138 for
    SIGUSR1.

    Attributes:
        message: what the user has not been told yet.
        together: whether all processes of the run stop at the same place.
    """

    def __init__(self, status: int, message: str = "", together: bool = False) -> None:
        super().__init__(status)
        self.message = message
        self.together = together


# What a disk, a file's name or its permissions can do to any call that opens or writes a file.
_ENVIRONMENT = {
    number: fix
    for fix, names in {
        "make room": ("ENOSPC", "EDQUOT", "EFBIG"),
        "the disk or its connection may be broken": ("EIO", "ESTALE"),
        "name a place that can be written to": ("EROFS",),
        "shorten it": ("ENAMETOOLONG",),
        "mend the links": ("ELOOP",),
        "get the permission or name another place": ("EACCES", "EPERM"),
        "raise the limit of open files (ulimit -n)": ("EMFILE", "ENFILE"),
    }.items()
    for name in names
    if (number := getattr(errno, name, None)) is not None
}


def reason_of(error: BaseException) -> str:
    """Why an error of the system was raised, without its number and its file's name."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def first_line_of(error: BaseException) -> str:
    """The first line of :func:`reason_of`: libraries go on with what is for their developers."""
    return (reason_of(error).strip().splitlines() or [type(error).__name__])[0]


# Of errors of the system, those that are about one file's name, whatever the disk is like.
_OF_THE_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)


def not_written(error: OSError, failed: str, fix: str = "") -> UserError:
    """The error to raise if something could not be written.

    Args:
        error: why.
        failed: what did not work, such as "cannot write x.png".
        fix: what the user may do.
    """
    kind = UserError if error.errno in _OF_THE_NAME else StopsAllError
    return kind(f"{failed}: {reason_of(error)}{fix and f'; {fix}'}")


def command_line(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap ``main``: a :class:`UserError` prints its message only and exits with status 1.

    So does an error of the system that is no program's fault, such as a full disk, and a package that is
    not installed. If the reader of the output stops early, as ``head`` does, the program ends silently, also
    with status 1. If the output cannot be written, the program says so when its work is done, and exits with
    status 1.

    Arguments of a tool are refused in several processes of a launcher, unless they have its ``--launcher``:
    each process would do all of the work, into the same files.

    Any other exception is a bug in danseg or in a library and keeps its traceback.
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a file's name need not be text
        try:
            for one in args:
                if isinstance(one, argparse.Namespace):
                    _require_launcher(one)
            main(*args, **kwargs)
            _flush_output()  # now, because at the interpreter's exit nothing could catch an error
        except UserError as error:
            print(f"error: {as_started(str(error))}", file=sys.stderr)
            sys.exit(1)
        except ModuleNotFoundError as error:
            package = (error.name or "danseg").partition(".")[0]
            if package == "danseg" or importlib.util.find_spec(package) is not None:
                raise  # a bug: what it is part of is there
            doctor = as_started("python tools/doctor.py")
            print(f"error: {error}; '{doctor}' says what is missing and what installs it", file=sys.stderr)
            sys.exit(1)
        except Stopped as stopped:
            if stopped.message:
                print(stopped.message, file=sys.stderr)
            raise
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        except BrokenPipeError:
            if _output_works():
                raise  # another pipe broke, which is a bug
            _discard_output()
            sys.exit(1)
        except OSError as error:
            if error.errno not in _ENVIRONMENT:
                raise
            name = error.filename
            where = f"{os.fsdecode(name)}: " if isinstance(name, (str, bytes)) else ""
            if not where and not _output_works():
                where = "the output cannot be written: "
                _discard_output()
            print(f"error: {where}{reason_of(error)}; {_ENVIRONMENT[error.errno]}", file=sys.stderr)
            sys.exit(1)

    return wrapper


def taking_back(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap ``main``: SIGTERM raises :class:`Stopped` in it, so that what is half made is taken back.

    A second one ends the process at once, as does the first one in a child, and in a process of a launcher,
    which ends all of them so. A handler of the program's own stays. Trainings have their own way
    (:mod:`danseg.engine.received_signals`).
    """

    @functools.wraps(main)
    def wrapper(args: argparse.Namespace) -> None:
        process = os.getpid()

        def stop(number: int, frame: FrameType | None) -> None:
            signal.signal(number, signal.SIG_DFL)
            if os.getpid() != process:
                os.kill(os.getpid(), number)
                return
            raise Stopped(128 + number, f"stopped by {signal.Signals(number).name}")

        main_thread = threading.current_thread() is threading.main_thread()
        launched = getattr(args, "launcher", "none") != "none"
        if launched or not main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            main(args)
            return
        signal.signal(signal.SIGTERM, stop)
        try:
            main(args)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    return wrapper


# For each launcher, the number of processes, and this one's.
_LAUNCHED = {
    "pytorch": ("WORLD_SIZE", "LOCAL_RANK", "RANK"),
    "slurm": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_PROCID"),
    "mpi": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_RANK"),
}


def _require_launcher(args: argparse.Namespace) -> None:
    """End processes that a launcher has started and that do not know of each other; the first one says so."""
    if getattr(args, "launcher", "none") != "none":
        return
    for launcher, names in _LAUNCHED.items():
        count, *numbers = (os.environ.get(name, "") for name in names)
        if not all(map(str.isdecimal, (count, *numbers))) or int(count) < 2:
            continue
        if int(numbers[-1]):
            sys.exit(1)
        fix = (
            f"share the work out with --launcher {launcher}"
            if hasattr(args, "launcher")
            else "this tool works in one; start it without the launcher"
        )
        raise UserError(f"{count} processes were started, each of which would do all of it; {fix}")


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_output()
        raise UserError(
            f"the output cannot be written: {reason_of(error)}; the work itself is done"
        ) from error


def _output_works() -> bool:
    """Whether stdout can be written; if it can, this test prints an empty line."""
    try:
        print(flush=True)
    except OSError:
        return False
    return True


def _discard_output() -> None:
    """At exit the interpreter writes what is still buffered: give it somewhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def require_mmseg(what: str) -> None:
    """Import mmseg, which ``what`` needs; if it is not installed, say how to install it.

    Raises:
        ModuleNotFoundError: mmseg is not installed.
    """
    if importlib.util.find_spec("mmseg") is None:
        raise ModuleNotFoundError(
            f"{what} plugs into mmseg, which is not installed: pip install 'danseg[onedl]' "
            "(maintained line) or pip install 'danseg[openmmlab]' (original line)",
            name="mmseg",
        )
    from danseg.mmseg_import import import_mmseg

    import_mmseg()


@contextlib.contextmanager
def importing_extra(extra: str, what: str) -> Iterator[None]:
    """Import in the block what an extra installs, or say how to install it.

    Args:
        extra: the extra's name.
        what: the message's beginning, which goes on "cannot be imported".

    Raises:
        UserError: it cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{what} cannot be imported ({error}); install it with pip install 'danseg[{extra}]'"
        ) from error


def require_extra(extra: str, what: str, *modules: str) -> None:
    """Ask for what an extra installs, before it is imported.

    Args:
        extra: the extra's name.
        what: what needs it, for the message.
        modules: names of the modules to import.

    Raises:
        UserError: some are not installed; the message says how to install them.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        listed = ", ".join(missing)
        raise UserError(f"{what} needs what is not installed: {listed}; pip install 'danseg[{extra}]'")
