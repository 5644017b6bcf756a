"""Mistakes a user can mend, and how a command line reports them.

Code below the tools raises :class:`UserError` (or the plain ``ValueError`` of a bad
argument) with a message that names the value, what is allowed and the fix. A tool's
``main`` is wrapped in :func:`command_line`, which prints that message alone and exits 1,
so that a user never has to read a stack of internals to learn that a path was wrong.
"""

import functools
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right: the message says what and how."""


def command_line(main: Callable[..., None]) -> Callable[..., None]:
    """Make ``main`` end with one clear message and exit status 1 on :class:`UserError`.

    Other exceptions are defects of danseg or of a library and keep their traceback.
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return wrapper
