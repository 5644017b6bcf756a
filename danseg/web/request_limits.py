"""How much a program that listens takes, and how it refuses what is beyond."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RequestLimits:
    """What is taken of requests.

    Attributes:
        bytes: of a request's body.
        pixels: of a picture, as its header claims them. By default a frame of 3840 x 2160.
        seconds: for a request, from its first byte to its answer. A stop waits as long for what was accepted.
        queue: how many requests are in work or wait; another one is refused.
    """

    bytes: int = 32 * 2**20
    pixels: int = 2**23
    seconds: float = 20.0
    queue: int = 256


class RefusedError(Exception):
    """A request that is answered with a status of HTTP and one message.

    Attributes:
        status: from 400 on. With 503, the client is told to try again.
        message: what is wrong, what is allowed, and the fix.
        closing: whether the connection ends with the answer.
    """

    def __init__(self, status: int, message: str, closing: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.closing = status, message, closing

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer."""
        again = {"Retry-After": "1"} if self.status == 503 else {}
        return {**again, **({"Connection": "close"} if self.closing else {})}
