"""Res2Net's convolution: a chain of small convolutions over the splits of one feature map.

Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", TPAMI 2021, arXiv 1904.01169.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.pooling import mean_3x3


class Res2NetConv(nn.Module):
    """Res2Net's hierarchical residual connections within one block.

    For the splits x_1 ... x_s of feature map ``x``::

        y_1 = relu(bns_1(convs_1(x_1)))
        y_i = relu(bns_i(convs_i(x_i + y_{i-1})))              # 1 < i < s
        out = concat(y_1, ..., y_{s-1}, x_s)

    Paper: Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", TPAMI 2021,
    arXiv 1904.01169, equation 1. Two details follow the authors' code. The last split passes through
    unchanged, not the first. In the first block of a stage (``chained=False``), no split sees its
    predecessor, because their sizes may differ; there a 3x3 average pooling applies the stride to the
    last split. Parameter names are those of the authors' blocks.

    Args:
        in_channels: channels of the input and of the output, divisible by ``scale``.
        scale: number of splits, at least 2.
        chained: whether each split adds its predecessor's output.
        stride: of convolutions and pooling; larger than 1 only with ``chained=False``.
        dilation: of the convolutions.
        norm_layer: builds a normalisation for a given number of channels.

    Shapes: ``(B, C, H, W)`` to ``(B, C, ceil(H / stride), ceil(W / stride))``.

    Raises:
        ValueError: for channels that cannot be split, a scale below 2, or a stride in a chain.
    """

    def __init__(
        self,
        in_channels: int,
        scale: int = 4,
        chained: bool = True,
        stride: int = 1,
        dilation: int = 1,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if scale < 2:
            raise ValueError(f"scale must be at least 2, got {scale}")
        if in_channels % scale:
            raise ValueError(f"in_channels must be divisible by scale = {scale}, got {in_channels}")
        if chained and stride > 1:
            raise ValueError(f"stride must be 1 unless chained=False, got {stride}")
        self.in_channels = in_channels
        self.scale = scale
        self.chained = chained
        self.stride = stride
        width = in_channels // scale
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
            for _ in range(scale - 1)
        )
        self.bns = nn.ModuleList(norm_layer(width) for _ in range(scale - 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, ceil(H / stride), ceil(W / stride))``."""
        check_feature_map(self, x)
        *splits, last = x.chunk(self.scale, dim=1)
        out: list[Tensor] = []
        for split, conv, bn in zip(splits, self.convs, self.bns, strict=True):
            if self.chained and out:
                split = split + out[-1]
            out.append(bn(conv(split)).relu())
        out.append(last if self.chained else mean_3x3(last, self.stride))
        return torch.cat(out, dim=1)
