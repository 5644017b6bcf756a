"""Pyramidal convolution: kernels of several sizes on one input.

Duta et al., "Pyramidal Convolution: Rethinking Convolutional Neural Networks for Visual Recognition",
arXiv 2006.11538.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PyramidalConv(nn.Module):
    """PyConv's convolution: the larger a kernel, the fewer channels it sees.

    Each level i has an odd kernel size and a number of groups. For feature map ``x``::

        out = concat_i(conv_i(x))                              # no bias

    Paper: Duta et al., "Pyramidal Convolution: Rethinking Convolutional Neural Networks for Visual
    Recognition", 2020, arXiv 2006.11538, section 3. As in the authors' networks, the output channels are
    cut into as many parts as there are levels, rounded up to a power of two. Each level has one part, and
    the last level has the rest: C/4, C/4, C/2 for three levels. ``levels.0``, ``levels.1``, ... are the
    ``conv2_1``, ``conv2_2``, ... of the authors' code, in which a single level has no such name.

    Args:
        in_channels: channels of the input and of the output.
        kernel_sizes: one odd size per level.
        groups: groups of each level's convolution; the greatest common divisor with its input and output
            channels is used.
        stride: of the convolutions; the output has ``ceil(H / stride)`` rows.
        dilation: of the convolutions.

    Shapes: ``(B, C, H, W)`` to ``(B, C, ceil(H / stride), ceil(W / stride))``.

    Raises:
        ValueError: for an even kernel size, lists of unequal lengths, or channels that cannot be cut into
            these parts.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_sizes: Sequence[int] = (3, 5, 7, 9),
        groups: Sequence[int] = (1, 4, 8, 16),
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        if not kernel_sizes or len(kernel_sizes) != len(groups):
            raise ValueError(
                "kernel_sizes and groups must have one entry per level, and at least one, got "
                f"{tuple(kernel_sizes)} and {tuple(groups)}"
            )
        if not all(size > 0 and size % 2 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd, got {tuple(kernel_sizes)}")
        parts = 2 ** (len(kernel_sizes) - 1).bit_length()
        if in_channels % parts:
            raise ValueError(
                f"in_channels must be divisible by {parts} for {len(kernel_sizes)} levels, got {in_channels}"
            )
        channels = [in_channels // parts] * (len(kernel_sizes) - 1)
        channels.append(in_channels - sum(channels))
        self.levels = nn.ModuleList(
            nn.Conv2d(
                in_channels,
                out_channels,
                size,
                stride=stride,
                padding=dilation * (size // 2),
                dilation=dilation,
                groups=math.gcd(group, in_channels, out_channels),
                bias=False,
            )
            for out_channels, size, group in zip(channels, kernel_sizes, groups, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, ceil(H / stride), ceil(W / stride))``."""
        return torch.cat([level(x) for level in self.levels], dim=1)
