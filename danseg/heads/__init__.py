"""Decode heads, registered in mmseg's ``MODELS``; one file a network."""

try:
    import mmseg  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "mmseg":
        raise
    raise ModuleNotFoundError(
        "danseg's heads plug into mmseg, which is not installed: pip install 'danseg[onedl]' "
        "(maintained line) or pip install 'danseg[openmmlab]' (original line)",
        name="mmseg",
    ) from error

from danseg.heads.danet import DANetHead

__all__ = ["DANetHead"]
