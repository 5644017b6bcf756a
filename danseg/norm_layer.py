"""Turn mmcv's ``norm_cfg`` into the ``norm_layer`` argument of danseg's modules."""

from collections.abc import Callable

from mmcv.cnn import build_norm_layer
from torch import nn


def norm_layer_of(norm_cfg: dict | None) -> Callable[[int], nn.Module] | None:
    """A function that makes ``norm_cfg``'s layer for a number of channels; None if ``norm_cfg`` is None."""
    if norm_cfg is None:
        return None
    return lambda channels: build_norm_layer(norm_cfg, channels)[1]
