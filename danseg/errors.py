"""Errors that a user can fix, and how a command line reports them.

Code below the tools raises :class:`UserError` (or a plain ``ValueError`` for a bad argument) with a message
that names the value, what is allowed and the fix. Each tool runs inside :func:`command_line`, which prints
only that message and exits with status 1. A user who mistypes a path therefore sees no traceback.
Packages that need mmseg call :func:`require_mmseg`.
"""

import functools
import importlib.util
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """An error that the user can fix; the message says what is wrong and how to fix it."""


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


def command_line(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap ``main``: a :class:`UserError` prints its message only and exits with status 1.

    If the reader of the output stops early, as ``head`` does, the program ends silently, also with status 1.
    Any other exception is a bug in danseg or in a library and keeps its traceback.
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
            sys.stdout.flush()  # now, because at the interpreter's exit nothing could catch an error
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except Stopped as stopped:
            if stopped.message:
                print(stopped.message, file=sys.stderr)
            raise
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        except BrokenPipeError:
            if not _reader_left():
                raise  # another pipe broke, which is a bug
            # At exit the interpreter writes what is still buffered: give it somewhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)

    return wrapper


def _reader_left() -> bool:
    """Whether the reader of stdout is gone; if it is not, this test prints an empty line."""
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False


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
