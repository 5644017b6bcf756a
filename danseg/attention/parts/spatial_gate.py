"""The gate of CBAM and triplet attention: it pools over one dimension and covers the other two."""

import torch
from torch import Tensor, nn

from danseg.attention.parts.conv_norm import ConvNorm
from danseg.attention.parts.pooling import wide_mean


class SpatialGate(nn.Module):
    """``σ(BN(f([max_c x; mean_c x])))`` with one k x k convolution f.

    Args:
        kernel_size: k, odd.

    Shapes: ``(B, C, H, W)`` to ``(B, 1, H, W)``.

    Raises:
        ValueError: for a ``kernel_size`` that is even or below 1.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 1, got {kernel_size}")
        self.conv = ConvNorm(2, 1, kernel_size, norm_layer=nn.BatchNorm2d)

    def forward(self, x: Tensor) -> Tensor:
        """Weights (B, 1, H, W) between 0 and 1, in the dtype of ``x``."""
        pooled = torch.cat([x.amax(1, keepdim=True), wide_mean(x, 1)], dim=1)  # (B, 2, H, W)
        return self.conv(pooled).sigmoid().to(x.dtype)
