"""How much a service takes."""

from dataclasses import dataclass

from danseg.web.request_limits import RequestLimits


@dataclass(frozen=True)
class Limits(RequestLimits):
    """What a service takes.

    Attributes:
        wait: for how many seconds the first picture of a batch waits for others of its size.
    """

    wait: float = 0.005
