"""What a part of a config is, by the name of its class."""

from collections.abc import Mapping
from typing import Any


def type_name(part: Mapping[str, Any]) -> str:
    """The name of the class that ``type`` names or is, without a scope or module such as ``mmseg.``."""
    kind = part.get("type")
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", str(kind))


def loads_labels(step: Mapping[str, Any]) -> bool:
    """Whether a pipeline's step loads labels."""
    name = type_name(step)
    return name.startswith("Load") and "Annotation" in name
