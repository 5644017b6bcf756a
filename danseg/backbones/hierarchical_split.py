"""Hierarchical split: each convolution passes half of its output on to the next.

Yuan et al., "HS-ResNet: Hierarchical-Split Block on Convolutional Neural Network", arXiv 2010.07621.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.pooling import mean_3x3


class HierarchicalSplit(nn.Module):
    """HS-ResNet's hierarchical-split block.

    Feature map ``x`` is split into x_1 ... x_s, and each convolution's output into two halves::

        y_2 = relu(bns_2(convs_2(x_2)))
        y_i = relu(bns_i(convs_i(concat(x_i, second half of y_{i-1}))))      # 2 < i <= s
        out = concat(x_1, first half of y_2, ..., first half of y_{s-1}, y_s)

    Paper: Yuan et al., "HS-ResNet: Hierarchical-Split Block on Convolutional Neural Network", 2020,
    arXiv 2010.07621. If the number of channels is odd, the first half has one more. All splits in the chain
    must have one size, so a 3x3 average pooling of the output applies the stride, as in ResNeSt.

    Args:
        in_channels: channels of the input and of the output, divisible by ``splits``.
        splits: number of splits, at least 2.
        stride: of the average pooling.
        dilation: of the convolutions.
        norm_layer: builds a normalisation for a given number of channels.

    Shapes: ``(B, C, H, W)`` to ``(B, C, ceil(H / stride), ceil(W / stride))``.

    Raises:
        ValueError: for channels that cannot be split, or fewer than 2 splits.
    """

    def __init__(
        self,
        in_channels: int,
        splits: int = 5,
        stride: int = 1,
        dilation: int = 1,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if splits < 2:
            raise ValueError(f"splits must be at least 2, got {splits}")
        if in_channels % splits:
            raise ValueError(f"in_channels must be divisible by splits = {splits}, got {in_channels}")
        self.in_channels = in_channels
        self.splits = splits
        self.stride = stride
        self.convs = nn.ModuleList()
        self.bns = nn.ModuleList()
        channels = in_channels // splits
        for _ in range(splits - 1):
            self.convs.append(
                nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
            )
            self.bns.append(norm_layer(channels))
            channels = in_channels // splits + channels // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, ceil(H / stride), ceil(W / stride))``."""
        check_feature_map(self, x)
        first, *others = x.chunk(self.splits, dim=1)
        out = [first]
        handed: Tensor | None = None  # what a split passes on to the next
        for split, conv, bn in zip(others, self.convs, self.bns, strict=True):
            y = bn(conv(split if handed is None else torch.cat([split, handed], dim=1))).relu()
            handed_channels = y.shape[1] // 2
            kept, handed = y.split([y.shape[1] - handed_channels, handed_channels], dim=1)
            out.append(kept)
        if handed is not None:  # the last one has no successor: both its halves stay
            out.append(handed)
        y = torch.cat(out, dim=1)
        return mean_3x3(y, self.stride) if self.stride > 1 else y
