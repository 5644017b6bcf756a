"""Means over many elements that stay accurate for 16-bit inputs."""

import torch
from torch import Tensor


def wide_mean(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Mean over ``dim``, kept as size 1; summed in at least float32, returned in the dtype of ``x``."""
    return x.mean(dim, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32)).to(x.dtype)
