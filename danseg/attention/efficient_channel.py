"""Efficient channel attention: a handful of weights scale each channel by the means of its neighbours.

Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR 2020,
arXiv 1910.03151.
"""

import math

from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.pooling import wide_mean


class EfficientChannelAttention(nn.Module):
    """ECA-Net's channel gate.

    For feature map ``x`` with N positions i and channels c::

        z = Σ_i x_i / N                                               # (C,)
        out_c = σ(Σ_u w_u z_{c+u}) · x_c                              # u from -(k-1)/2 to (k-1)/2

    z is zero beyond the first and the last channel, and ``k = |log₂(C) / gamma + b / gamma|`` is made odd.

    Paper: Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR
    2020, arXiv 1910.03151, section 3.2. To make k odd, the paper takes the nearest odd number. This module
    follows the authors' code: it rounds k down, and adds one if the result is even.

    Args:
        in_channels: channels of the input and of the output.
        gamma: positive; the larger it is, the fewer neighbours take part.
        b: offset in the kernel size's formula.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for ``in_channels`` below 1, or a ``gamma`` that is not positive.
    """

    def __init__(self, in_channels: int, gamma: float = 2, b: float = 1) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        if gamma <= 0:
            raise ValueError(f"gamma must be above 0, got {gamma}")
        self.in_channels = in_channels
        kernel_size = int(abs((math.log2(in_channels) + b) / gamma)) // 2 * 2 + 1
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        check_feature_map(self, x)
        mean = wide_mean(x, (2, 3)).flatten(1).unsqueeze(1)  # (B, 1, C)
        gate = self.conv(mean).sigmoid().to(x.dtype)
        return x * gate.transpose(1, 2).unsqueeze(3)
