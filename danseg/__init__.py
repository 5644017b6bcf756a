"""Semantic segmentation whose context comes from exact, linear-memory attention.

After ``import danseg``, mmseg's registries find danseg's heads, datasets, metrics and hooks; what it takes is
imported at the first lookup. Without mmseg the import does nothing: ``danseg.ops`` and ``danseg.attention``
need torch alone.
"""

import importlib
import importlib.util
from types import ModuleType

from danseg.version import __version__

__all__ = ["__version__"]


def __getattr__(name: str) -> ModuleType:
    """A module of the package, imported when it is named: ``danseg.heads`` after ``import danseg`` alone."""
    if not name.startswith("_") and importlib.util.find_spec(f"danseg.{name}") is not None:
        return importlib.import_module(f"danseg.{name}")
    raise AttributeError(f"module 'danseg' has no attribute {name!r}")


if importlib.util.find_spec("mmseg") is not None:
    from danseg.mmseg_import import register_at_first_lookup

    register_at_first_lookup()
