"""Means over many elements that stay exact in 16 bits."""

import torch
from torch import Tensor


def wide_mean(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Mean over ``dim``, which stays as size 1, summed in at least float32; in the dtype of ``x``."""
    return x.mean(dim, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32)).to(x.dtype)
