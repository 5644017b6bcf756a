"""Weights in and out: those of others with their network's config, and a network as one file for others."""

from danseg.errors import require_mmseg

require_mmseg("danseg.convert")

from danseg.convert.conversion import Converted, convert  # noqa: E402
from danseg.convert.published import Published, publish  # noqa: E402

__all__ = ["Converted", "Published", "convert", "publish"]
