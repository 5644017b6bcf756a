"""Which files hold a network, told by the end of their names, without importing anything large."""

from pathlib import PurePath

CHECKPOINTS = (".pth", ".safetensors")
EXPORTED = (".onnx", ".xml", ".pt2", ".pt")


def is_model_file(name: object) -> bool:
    """Whether this is a file of a network, or its address (https://...), and no config."""
    text = str(name)
    if "://" in text:
        text = text.partition("#")[0]  # where an address may tell the hash
    return PurePath(text).suffix.lower() in (*CHECKPOINTS, *EXPORTED)


def is_exported_file(name: object) -> bool:
    """Whether this is a file that ``tools/export.py`` has written, by its name."""
    return PurePath(str(name)).suffix.lower() in EXPORTED
