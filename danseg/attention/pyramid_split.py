"""Pyramid split attention: every channel weighs four kernel sizes against each other.

Zhang et al., "EPSANet: An Efficient Pyramid Squeeze Attention Block on Convolutional Neural Network",
ACCV 2022, arXiv 2105.14447.
"""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from danseg.attention.parts.arguments import check_at_least_one, check_feature_map
from danseg.attention.parts.branch_views import kernel_name, where_view, wide_softmax
from danseg.attention.parts.pooling import wide_mean
from danseg.attention.parts.views import ShowsAttention, View, at_once


class PyramidSplit(ShowsAttention, nn.Module, ABC):
    """Branches of different kernel sizes, weighted by a subclass's :meth:`score` and concatenated."""

    def __init__(
        self,
        in_channels: int,
        kernel_sizes: Sequence[int],
        groups: Sequence[int],
        stride: int,
        dilation: int,
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, stride=stride, dilation=dilation)
        if min(groups, default=1) < 1:
            raise ValueError(f"groups must be at least 1, got {tuple(groups)}")
        if len(kernel_sizes) < 2 or len(kernel_sizes) != len(groups):
            raise ValueError(
                "kernel_sizes and groups must have one entry per branch, and at least two, got "
                f"{tuple(kernel_sizes)} and {tuple(groups)}"
            )
        if not all(size > 0 and size % 2 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd, got {tuple(kernel_sizes)}")
        if in_channels % len(kernel_sizes):
            raise ValueError(
                f"in_channels must be divisible by the number of branches, {len(kernel_sizes)}, "
                f"got {in_channels}"
            )
        self.in_channels = in_channels
        self.branches = len(kernel_sizes)
        self.branch_channels = in_channels // self.branches
        self.branch_names = tuple(kernel_name(size, dilation) for size in kernel_sizes)
        for i, (size, group) in enumerate(zip(kernel_sizes, groups, strict=True), start=1):
            conv = nn.Conv2d(
                in_channels,
                self.branch_channels,
                size,
                stride=stride,
                padding=dilation * (size // 2),
                dilation=dilation,
                groups=math.gcd(group, self.branch_channels),
                bias=False,
            )
            self.add_module(f"conv_{i}", conv)

    @abstractmethod
    def score(self, features: list[Tensor]) -> Tensor:
        """The energies (B, S, C / S) of the softmax over the S branches, from S features (B, C / S, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, ceil(H / stride), ceil(W / stride))``."""
        return torch.cat(self._weighed(x)[::-1], dim=1).to(x.dtype)

    def _features(self, x: Tensor) -> list[Tensor]:
        check_feature_map(self, x)
        return [conv(x) for conv in self._convs()]

    def _convs(self) -> list[nn.Module]:
        return [getattr(self, f"conv_{i}") for i in range(1, self.branches + 1)]

    def _weighed(self, x: Tensor) -> list[Tensor]:
        features = self._features(x)
        weight = self.score(features).softmax(dim=1).to(features[0].dtype)[..., None, None]
        return [w * f for w, f in zip(weight.unbind(dim=1), features, strict=True)]

    def attention_views(self) -> tuple[View, ...]:
        """The branches' weights; and which branch wins where, "where"."""
        weights = at_once(lambda x: wide_softmax(self.score(self._features(x))))
        return (
            View("branches", weights, parts=self.branch_names),
            where_view(self._weighed, self.branch_names),
        )

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return torch.cat(self._features(x)[::-1], dim=1).to(x.dtype) / self.branches


class PyramidSplitAttention(PyramidSplit):
    """EPSANet's pyramid squeeze attention.

    For feature map ``x`` and branches i = 1 ... 4 of kernel sizes 3, 5, 7, 9::

        F_i = conv_i(x)                                        # C / 4 channels, grouped, no bias
        s_i = σ(fc2(relu(fc1(mean_hw(F_i)))))                  # one squeeze-and-excitation for all i
        out = concat_i=4,3,2,1(softmax_i(s_i) · F_i)

    Paper: Zhang et al., "EPSANet: An Efficient Pyramid Squeeze Attention Block on Convolutional Neural
    Network", ACCV 2022, arXiv 2105.14447, section 3. The paper concatenates the branches from 1 to 4, the
    authors' code from 4 to 1. This module follows the code, so that weights trained with it give the same
    results. Parameter names are those of the code as well.

    Args:
        in_channels: channels of the input and of the output, divisible by the number of branches.
        kernel_sizes: one odd size per branch.
        groups: groups of each branch's convolution; the greatest common divisor with the branch's
            channels is used.
        reduction: of the squeeze-and-excitation, which is at least one channel wide.
        stride: of the convolutions; the output has ``ceil(H / stride)`` rows.
        dilation: of the convolutions.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a number below 1, an even kernel size, lists of unequal lengths, or channels that
            cannot be divided among the branches.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_sizes: Sequence[int] = (3, 5, 7, 9),
        groups: Sequence[int] = (1, 4, 8, 16),
        reduction: int = 16,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, kernel_sizes, groups, stride, dilation)
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, got {reduction}")
        squeezed = max(1, self.branch_channels // reduction)
        self.se = nn.Sequential(
            OrderedDict(
                fc1=nn.Conv2d(self.branch_channels, squeezed, 1),
                relu=nn.ReLU(),
                fc2=nn.Conv2d(squeezed, self.branch_channels, 1),
            )
        )

    def score(self, features: list[Tensor]) -> Tensor:
        pooled = torch.stack([wide_mean(f, (2, 3)) for f in features], dim=1)  # (B, S, C / S, 1, 1)
        return self.se(pooled.flatten(0, 1)).sigmoid().view(pooled.shape[:3])
