"""Checks that all modules share: of their arguments, and of what they are given."""

import math
from typing import Any

from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from danseg.ops.exporting import exporting

_SIDES = {1: "L", 2: "H, W", 3: "T, H, W"}


def check_at_least_one(**counts: int) -> None:
    """Refuse counts below 1.

    Raises:
        ValueError: naming the first such argument and its value.
    """
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_feature_map(module: Any, x: Tensor) -> None:
    """Refuse an input that ``module`` was not made for; its methods that take a feature map start with this.

    Args:
        module: has ``in_channels``, and ``dims``, the number of spatial dimensions, where they are not 2.
        x: the input.

    Raises:
        ValueError: for another number of dimensions or channels, no position, or numbers that are not
            floating point.
    """
    if exporting():
        return  # sizes are unknown
    dims, channels = getattr(module, "dims", 2), module.in_channels
    if x.dim() == dims + 2 and x.shape[1] == channels and x.is_floating_point() and 0 not in x.shape[2:]:
        return
    fix = "; one image needs a batch dimension, x[None]" if x.dim() == dims + 1 else ""
    raise ValueError(
        f"{type(module).__name__} was made for {channels} channels and takes floating-point "
        f"(B, {channels}, {_SIDES[dims]}) with at least one position, got {tuple(x.shape)} of {x.dtype}{fix}"
    )


def check_batch_norm(norm: object, *size: int) -> None:
    """Refuse, in training, to normalise a single value per channel, whose result would be its bias alone.

    Args:
        norm: the normalisation; a batch norm that shares statistics between processes may see one value.
        size: sizes of the dimensions that it normalises over, such as the batch's, the height and the width.

    Raises:
        ValueError: naming the layer and the fix.
    """
    if exporting() or not isinstance(norm, _BatchNorm) or not norm.training or math.prod(size) != 1:
        return
    if not (isinstance(norm, nn.SyncBatchNorm) and _has_other_processes()):
        raise ValueError(
            f"{type(norm).__name__} over the batch would get a single value per channel: training needs at "
            "least 2 images, got 1; raise the batch size, share statistics between devices (SyncBN), or call "
            "eval()"
        )


def _has_other_processes() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
