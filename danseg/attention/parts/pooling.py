"""Means over many elements that stay accurate for 16-bit inputs, and over neighbours in any memory layout."""

import torch
from torch import Tensor
from torch.nn import functional as F


def wide_mean(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Mean over ``dim``, kept as size 1; summed in at least float32, returned in the dtype of ``x``."""
    return x.mean(dim, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32)).to(x.dtype)


def mean_3x3(x: Tensor, stride: int) -> Tensor:
    """Means of 3 x 3 neighbours, zeros outside: ``(B, C, H, W)`` to ``(B, C, ceil(H / stride), ...)``.

    The zeros are written. With ``padding=1``, the gradient on a GPU is wrong in PyTorch 2.11, among others,
    for tensors in channels_last (https://github.com/pytorch/pytorch/issues/188344).
    """
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride)
