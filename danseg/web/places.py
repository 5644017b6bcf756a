"""A place for each request that is in work or waits, and no new ones once a stop is asked for."""

import contextlib
import time
from collections.abc import Iterator

from danseg.web.request_limits import RefusedError, RequestLimits


class Places:
    """What answers requests, and how many it may have at a time. Its methods run in one event loop.

    Attributes:
        limits: what it takes.
        places: how many requests are in work or wait.
        name: what it is called when it starts.
        hint: what to do with its address, for who starts it.
    """

    name = "danseg"
    hint = ""

    def __init__(self, limits: RequestLimits) -> None:
        self.limits = limits
        self.places = 0
        self._until: float | None = None

    def stop(self) -> None:
        """Refuse new requests from now on."""
        if self._until is None:
            self._until = time.monotonic() + self.limits.seconds

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._until is not None

    @property
    def stopped(self) -> bool:
        """Whether it was, and all that was accepted is answered, or has had its time."""
        return self._until is not None and (not self.places or time.monotonic() >= self._until)

    def require_place(self) -> None:
        """Raise a RefusedError if another request would be refused."""
        if self.stopping:
            raise RefusedError(503, f"{self.name} is stopping; ask another one", closing=True)
        if self.places >= self.limits.queue:
            raise RefusedError(503, f"{self.places} requests are in work or wait, and no more may; try again")

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue during the block.

        Raises:
            RefusedError: there is none.
        """
        self.require_place()
        self.places += 1
        try:
            yield
        finally:
            self.places -= 1
