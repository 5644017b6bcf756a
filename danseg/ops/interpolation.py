"""Linear interpolation between grids, as matrices."""

import torch
from torch import Tensor
from torch.nn import functional as F


def interpolation_matrix(
    old: int, new: int, *, align_corners: bool = False, dtype: torch.dtype | None = None
) -> Tensor:
    """The matrix (new, old), on the CPU, that resizes ``old`` samples to ``new``, as ``F.interpolate`` does.

    Resizing an image bilinearly is one such matrix from the left and one from the right, and the
    gradient of it the same matrices transposed.
    """
    samples = torch.eye(old, dtype=dtype)[None]  # one channel for each sample
    return F.interpolate(samples, size=new, mode="linear", align_corners=align_corners)[0].T.contiguous()
