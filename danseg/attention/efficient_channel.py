"""Efficient channel attention: a handful of weights scale each channel by the means of its neighbours.

Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR 2020,
arXiv 1910.03151.
"""

import math

from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.channel_gate import ChannelGate
from danseg.attention.parts.pooling import wide_mean


class EfficientChannelAttention(ChannelGate):
    """ECA-Net's channel gate.

    For feature map ``x`` with N positions i and channels c::

        z = Σ_i x_i / N                                               # (C,)
        out_c = σ(Σ_u w_u z_{c+u}) · x_c                              # u from -(k-1)/2 to (k-1)/2

    z is zero beyond the first and the last channel, and ``k = |log₂(C) / gamma + b / gamma|`` is made odd.

    Paper: Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR
    2020, arXiv 1910.03151, section 3.2. To make k odd, the paper's text takes the nearest odd number. This
    module follows the paper's listing: it rounds k down, and adds one if the result is even. The authors'
    code leaves k to the user, and their published networks differ from the formula, which gives 5, 5, 5, 7
    for a ResNet's stages: ECA-Net50 has 3, 5, 5, 7, ECA-Net101 and 152 have 3, 3, 5, 7. Their weights need
    ``kernel_size``; the parameter's name is theirs.

    Args:
        in_channels: channels of the input and of the output.
        gamma: positive; the larger it is, the fewer neighbours take part.
        b: offset in the kernel size's formula.
        kernel_size: k, odd; takes the place of the formula.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for ``in_channels`` below 1, a ``gamma`` that is not positive, a ``kernel_size`` that is
            even or below 1, or one beside numbers for its formula.
    """

    def __init__(
        self, in_channels: int, gamma: float = 2, b: float = 1, kernel_size: int | None = None
    ) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        if gamma <= 0:
            raise ValueError(f"gamma must be above 0, got {gamma}")
        self.in_channels = in_channels
        if kernel_size is None:
            kernel_size = int(abs((math.log2(in_channels) + b) / gamma)) // 2 * 2 + 1
        elif (gamma, b) != (2, 1):
            raise ValueError(
                "gamma and b make a kernel_size: leave out one or the other, got "
                f"gamma={gamma}, b={b} and kernel_size={kernel_size}"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 1, got {kernel_size}")
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def _gate(self, x: Tensor) -> Tensor:
        check_feature_map(self, x)
        mean = wide_mean(x, (2, 3)).flatten(1).unsqueeze(1)  # (B, 1, C)
        gate = self.conv(mean).sigmoid().to(x.dtype)
        return gate.transpose(1, 2).unsqueeze(3)  # (B, C, 1, 1)
