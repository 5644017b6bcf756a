"""Weights of other projects, brought into danseg's names with the config that their network needs."""

from danseg.errors import require_mmseg

require_mmseg("danseg.convert")

from danseg.convert.conversion import convert  # noqa: E402
from danseg.convert.converted import Converted  # noqa: E402

__all__ = ["Converted", "convert"]
