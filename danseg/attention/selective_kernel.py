"""Selective kernel: every channel weighs branches of different receptive fields against each other.

Li et al., "Selective Kernel Networks", CVPR 2019, arXiv 1903.06586.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from danseg.attention.parts.arguments import check_at_least_one, check_batch_norm, check_feature_map
from danseg.attention.parts.branch_views import kernel_name, where_view, wide_softmax
from danseg.attention.parts.pooling import wide_mean
from danseg.attention.parts.views import ShowsAttention, View, at_once


class SelectiveKernel(ShowsAttention, nn.Module):
    """SKNet's selective kernel convolution.

    For feature map ``x`` and branches i = 1 ... M, where branch i has dilation i::

        U_i = relu(bn_i(conv_i(x)))                            # 3x3, grouped
        z = relu(bn(fc_reduce(mean_hw(Σ_i U_i))))              # max(C / r, L) channels
        out = Σ_i softmax_i(fc_select_i(z)) · U_i

    Paper: Li et al., "Selective Kernel Networks", CVPR 2019, arXiv 1903.06586, equations 1 to 6. As in
    the paper, the 5x5 kernel is a 3x3 kernel of dilation 2. The only difference is that ``groups`` need
    not divide the channels. Parameter names are those of timm's module of the same structure. The authors'
    later PyTorch code has other branches, a full and a grouped 3x3 kernel without dilation, and no least
    number of squeezed features; its weights do not fit.

    In training, the norm before the weights sees one value per image and channel, so a batch needs at least
    two images (counted over all devices with a synchronised norm).

    Args:
        in_channels: channels of the input and of the output.
        branches: number of kernels to choose from, at least 2.
        groups: groups of the 3x3 convolutions; the greatest common divisor with ``in_channels`` is used.
        reduction: the squeezed features have ``in_channels // reduction`` channels.
        min_channels: the least number of squeezed features' channels.
        stride: of the 3x3 convolutions; the output has ``ceil(H / stride)`` rows.
        dilation: multiplies the dilation of each branch.
        norm_layer: builds a normalisation for a given number of channels.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for fewer than 2 branches, or any other number below 1.
    """

    def __init__(
        self,
        in_channels: int,
        branches: int = 2,
        groups: int = 32,
        reduction: int = 16,
        min_channels: int = 32,
        stride: int = 1,
        dilation: int = 1,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_channels=in_channels,
            groups=groups,
            reduction=reduction,
            min_channels=min_channels,
            stride=stride,
            dilation=dilation,
        )
        if branches < 2:
            raise ValueError(f"branches must be at least 2, or there is nothing to select, got {branches}")
        self.in_channels = in_channels
        self.branch_names = tuple(kernel_name(3, dilation * (i + 1)) for i in range(branches))
        squeezed = max(in_channels // reduction, min_channels)

        def path(rate: int) -> nn.Sequential:
            conv = nn.Conv2d(
                in_channels,
                in_channels,
                3,
                stride=stride,
                padding=rate,
                dilation=rate,
                groups=math.gcd(groups, in_channels),
                bias=False,
            )
            return nn.Sequential(OrderedDict(conv=conv, bn=norm_layer(in_channels), relu=nn.ReLU()))

        self.paths = nn.ModuleList(path(dilation * (i + 1)) for i in range(branches))
        self.attn = nn.Sequential(
            OrderedDict(
                fc_reduce=nn.Conv2d(in_channels, squeezed, 1, bias=False),
                bn=norm_layer(squeezed),
                relu=nn.ReLU(),
                fc_select=nn.Conv2d(squeezed, branches * in_channels, 1, bias=False),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, ceil(H / stride), ceil(W / stride))``."""
        return sum(self._weighed(x)).to(x.dtype)

    def _features(self, x: Tensor) -> list[Any]:
        check_feature_map(self, x)
        check_batch_norm(self.attn.bn, x.shape[0])
        return [path(x) for path in self.paths]  # M of (B, C, H, W)

    def _energy(self, features: list[Any]) -> Tensor:
        squeezed = wide_mean(sum(features), (2, 3))
        return self.attn(squeezed).unflatten(1, (len(features), -1))  # (B, M, C, 1, 1)

    def _weighed(self, x: Tensor) -> Iterator[Any]:
        features = self._features(x)
        weight = self._energy(features).softmax(dim=1).to(features[0].dtype)
        return (w * u for w, u in zip(weight.unbind(dim=1), features, strict=True))

    def attention_views(self) -> tuple[View, ...]:
        """The branches' weights; and which branch wins where, "where"."""
        weights = at_once(lambda x: wide_softmax(self._energy(self._features(x))).flatten(2))
        names = self.branch_names
        return View("branches", weights, parts=names), where_view(self._weighed, names)

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        features = self._features(x)
        return (sum(features) / len(features)).to(x.dtype)
