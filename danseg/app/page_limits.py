"""How much a page takes and keeps."""

from dataclasses import dataclass

from danseg.web.request_limits import RequestLimits


@dataclass(frozen=True)
class PageLimits(RequestLimits):
    """What a page takes and keeps.

    Attributes:
        kept: bytes of forward passes in memory; the longest unused are let go, and made again when asked for.
        stored: bytes of the visitors' pictures on the disk; the oldest ones go.
    """

    seconds: float = 120.0
    kept: int = 2**31
    stored: int = 2**30
