"""Let everything that mmengine loads while a network is built or started go through danseg's own reader."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from mmengine.runner import CheckpointLoader

from danseg.engine.checkpoints.checkpoint import read_content
from danseg.engine.checkpoints.torchvision_names import as_mmseg_resnet

# The beginnings of what :func:`danseg.engine.checkpoints.downloads.local_file` takes, in mmengine's registry.
_READ = (
    "",
    "http://",
    "https://",
    "open-mmlab://",
    "openmmlab://",
    "torchvision://",
    "modelzoo://",
    "mmcls://",
)
# torch.load obeys it, whoever calls: nothing but tensors and plain types is unpickled.
_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextlib.contextmanager
def reading_safely() -> Iterator[None]:
    """While it lasts, no file that mmengine or torch loads in this process runs code.

    mmengine's loader unpickles without restrictions where the restricted way fails. In its place
    :func:`danseg.engine.checkpoints.checkpoint.read_content` reads: whole files, safetensors too, and
    addresses with their hash. Afterwards all is as before, for other code in the same process.
    """
    loaders = {prefix: CheckpointLoader._schemes[prefix] for prefix in _READ}
    forced = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    CheckpointLoader.register_scheme(_READ, load_from_danseg, force=True)
    try:
        yield
    finally:
        for prefix, loader in loaders.items():
            CheckpointLoader.register_scheme(prefix, loader, force=True)
        if forced is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = forced


def load_from_danseg(filename: str, map_location: Any = None) -> dict[str, Any]:
    """What mmengine calls; it takes the name of the loader from that of the function."""
    content = read_content(filename, map_location)
    if "state_dict" in content:
        return {**content, "state_dict": as_mmseg_resnet(content["state_dict"])}
    return as_mmseg_resnet(content)
