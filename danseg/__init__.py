"""Semantic segmentation with exact attention in linear memory.

After ``import danseg``, mmseg's registries find danseg's heads, data sets, metrics and hooks; these are
imported at the first lookup. Without mmseg, ``import danseg`` registers nothing: ``danseg.ops`` and
``danseg.attention`` need only torch.
"""

import importlib
import importlib.util
from types import ModuleType

from danseg.version import __version__

__all__ = ["__version__"]


def __getattr__(name: str) -> ModuleType:
    """Import a module of the package at its first use, such as ``danseg.heads`` after ``import danseg``."""
    if not name.startswith("_") and importlib.util.find_spec(f"danseg.{name}") is not None:
        return importlib.import_module(f"danseg.{name}")
    raise AttributeError(f"module 'danseg' has no attribute {name!r}")


if importlib.util.find_spec("mmseg") is not None:
    from danseg.mmseg_import import connect

    connect()
