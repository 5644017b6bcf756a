"""Mistakes a user can mend, and how a command line reports them.

Code below the tools raises :class:`UserError` (or the plain ``ValueError`` of a bad
argument) with a message that names the value, what is allowed and the fix. A tool's
``main`` is wrapped in :func:`command_line`, which prints that message alone and exits 1,
so that a user never has to read a stack of internals to learn that a path was wrong.
:func:`require_mmseg` is for the packages that cannot be imported without mmseg.
"""

import functools
import importlib.util
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right: the message says what and how."""


def command_line(main: Callable[..., None]) -> Callable[..., None]:
    """Make ``main`` end with one clear message and exit status 1 on :class:`UserError`.

    A reader of the output that leaves early, such as ``head``, ends it quietly, also with status 1.
    Other exceptions are defects of danseg or of a library and keep their traceback.
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
            sys.stdout.flush()  # here, not at the interpreter's exit, where nothing can catch an error
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        except BrokenPipeError:
            if not _reader_left():
                raise  # a pipe between processes broke, which is a defect
            # What is still buffered has to go somewhere when the interpreter exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)

    return wrapper


def _reader_left() -> bool:
    """Whether nobody reads stdout any more; the attempt costs a reader who is there one empty line."""
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False


def require_mmseg(what: str) -> None:
    """Import mmseg, which ``what`` builds on; where it is not installed, say how to install it.

    Raises:
        ModuleNotFoundError: there is no mmseg.
    """
    if importlib.util.find_spec("mmseg") is None:
        raise ModuleNotFoundError(
            f"{what} plugs into mmseg, which is not installed: pip install 'danseg[onedl]' "
            "(maintained line) or pip install 'danseg[openmmlab]' (original line)",
            name="mmseg",
        )
    from danseg.mmseg_import import import_mmseg

    import_mmseg()
