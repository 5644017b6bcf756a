"""mmcv's ``norm_cfg`` in the form that danseg's modules take a normalisation."""

from collections.abc import Callable

from mmcv.cnn import build_norm_layer
from torch import nn


def norm_layer_of(norm_cfg: dict | None) -> Callable[[int], nn.Module] | None:
    """What makes the normalisation of ``norm_cfg`` for a number of channels; None where there is none."""
    if norm_cfg is None:
        return None
    return lambda channels: build_norm_layer(norm_cfg, channels)[1]
