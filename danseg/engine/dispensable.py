"""What a training can do without: its logs, curves, pictures and notes.

Where one of them cannot be written, because the disk is full for example, the training says so once and goes
on. The next one is tried again, so that writing resumes when there is room.
"""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import print_log

from danseg.errors import UserError, reason_of


class Dispensable:
    """Guards everything that writes one such file, or one such kind of file.

    Args:
        what: its name in the message, such as ``"validation.json"``.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._failing = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Go on behind the block if it cannot write. It should do nothing but write."""
        try:
            yield
        except (OSError, UserError) as error:
            self.failed(error)
        else:
            self.worked()

    def failed(self, error: BaseException) -> None:
        """Warn of the first failure of several in a row."""
        if self._failing:
            return
        self._failing = True  # before the warning: the log may be what cannot be written
        said = f"{self._what}: {reason_of(error)}; the run goes on without, and keeps trying"
        print_log(said, "current", logging.WARNING)

    def worked(self) -> None:
        """Say so, if it failed before."""
        if self._failing:
            self._failing = False
            print_log(f"{self._what}: written again", "current")


def go_on_without(handler: logging.Handler) -> None:
    """Let a log's handler warn once instead of printing a traceback for each line that it cannot write.

    Its buffer keeps the last lines, and writes them when there is room. What is no text, as some names of
    files, is written with escapes.
    """
    stream = getattr(handler, "stream", None)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    writing = Dispensable(getattr(handler, "baseFilename", "the output"))
    of_a_bug = handler.handleError

    def handle_error(record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            writing.failed(error)
        else:
            of_a_bug(record)

    handler.handleError = handle_error  # type: ignore[method-assign]
