"""Split attention: every channel weighs the splits of a grouped convolution against each other.

Zhang et al., "ResNeSt: Split-Attention Networks", CVPR Workshops 2022, arXiv 2004.08955.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from danseg.attention.parts.arguments import check_at_least_one, check_batch_norm, check_feature_map
from danseg.attention.parts.branch_views import where_view, wide_softmax
from danseg.attention.parts.pooling import mean_3x3
from danseg.attention.parts.views import ShowsAttention, View, at_once


class SplitAttention(ShowsAttention, nn.Module):
    """ResNeSt's split-attention convolution.

    For feature map ``x``, splits i = 1 ... R (the radix) and, within each, cardinal groups k::

        U_1 ... U_R = relu(bn0(conv(x)))                       # 3x3, R · groups groups, C channels each
        z = relu(bn1(fc1(mean_hw(Σ_i U_i))))
        out = Σ_i softmax_i(fc2_i(z)) · U_i                    # a sigmoid when R is 1

    Paper: Zhang et al., "ResNeSt: Split-Attention Networks", CVPR Workshops 2022, arXiv 2004.08955,
    equations 1 to 3; ``fc1`` and ``fc2`` are grouped by k. As in the authors' code, the channels of
    ``conv`` are ordered by split first, and a 3x3 average pooling after the attention applies the
    stride. In the authors' networks the first block of each stage but the first keeps this pooling when
    dilation takes the place of its stride; mmseg's drops it. Parameter names are those of mmseg's
    ``SplitAttentionConv2d`` and of the authors' ``SplAtConv2d``, whose weights load.

    In training, the norm before the weights sees one value per image and channel, so a batch needs at least
    two images (counted over all devices with a synchronised norm).

    Args:
        in_channels: channels of the input and of the output, divisible by ``radix * groups``.
        radix: number of splits.
        groups: number of cardinal groups.
        reduction: the squeezed features have ``in_channels * radix // reduction`` channels.
        min_channels: the least number of squeezed features' channels. Their number is rounded up to a
            multiple of ``groups``.
        stride: of the average pooling; the output has ``ceil(H / stride)`` rows.
        dilation: of the 3x3 convolution.
        norm_layer: builds a normalisation for a given number of channels.
        always_pool: whether the average pooling stays where ``stride`` is 1.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a number below 1, or channels that cannot be divided into the groups.
    """

    def __init__(
        self,
        in_channels: int,
        radix: int = 2,
        groups: int = 1,
        reduction: int = 4,
        min_channels: int = 32,
        stride: int = 1,
        dilation: int = 1,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
        always_pool: bool = False,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_channels=in_channels,
            radix=radix,
            groups=groups,
            reduction=reduction,
            min_channels=min_channels,
            stride=stride,
            dilation=dilation,
        )
        if in_channels % (radix * groups):
            raise ValueError(
                f"in_channels must be divisible by radix * groups = {radix * groups}, got {in_channels}"
            )
        self.in_channels = in_channels
        self.radix = radix
        self.groups = groups
        self.stride = stride
        self.always_pool = always_pool
        squeezed = max(in_channels * radix // reduction, min_channels)
        squeezed += -squeezed % groups
        self.conv = nn.Conv2d(
            in_channels,
            in_channels * radix,
            3,
            padding=dilation,
            dilation=dilation,
            groups=groups * radix,
            bias=False,
        )
        self.bn0 = norm_layer(in_channels * radix)
        self.fc1 = nn.Conv2d(in_channels, squeezed, 1, groups=groups)
        self.bn1 = norm_layer(squeezed)
        self.fc2 = nn.Conv2d(squeezed, in_channels * radix, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, ceil(H / stride), ceil(W / stride))``."""
        return self._pooled(self._weighed(x)).to(x.dtype)

    def _splits(self, x: Tensor) -> Tensor:
        check_feature_map(self, x)
        check_batch_norm(self.bn1, x.shape[0])
        return self.bn0(self.conv(x)).relu().unflatten(1, (self.radix, -1))  # (B, R, C, H, W)

    def _weighed(self, x: Tensor) -> Tensor:
        splits = self._splits(x)
        energy = self._energy(splits)
        weight = energy.softmax(dim=1) if self.radix > 1 else energy.sigmoid()
        return weight.flatten(2, 3).to(splits.dtype) * splits

    def _pooled(self, weighed: Tensor) -> Tensor:
        out = weighed.sum(dim=1)
        if self.stride > 1 or self.always_pool:
            out = mean_3x3(out, self.stride)
        return out

    def _energy(self, splits: Tensor) -> Tensor:
        wide = torch.promote_types(splits.dtype, torch.float32)
        pooled = splits.mean(dim=(3, 4), dtype=wide).sum(dim=1)  # (B, C)
        z = self.bn1(self.fc1(pooled[:, :, None, None].to(splits.dtype))).relu()
        # fc2 is grouped, so its channels are ordered by cardinal group first, then by split.
        energy = self.fc2(z).unflatten(1, (self.groups, self.radix, -1))  # (B, K, R, C / K, 1, 1)
        return energy.transpose(1, 2)  # (B, R, K, C / K, 1, 1)

    def _shares(self, splits: Tensor) -> Tensor:
        energy = self._energy(splits)
        return (wide_softmax(energy) if self.radix > 1 else energy.sigmoid()).flatten(2)  # (B, R, C)

    def attention_views(self) -> tuple[View, ...]:
        """The splits' weights; and which split wins where, "where", if there are several."""
        weights = at_once(lambda x: self._shares(self._splits(x)))
        if self.radix == 1:
            return (View("branches", weights, values="gate"),)
        parts = tuple(f"split {i}" for i in range(1, self.radix + 1))
        return View("branches", weights, parts=parts), where_view(
            lambda x: self._weighed(x).unbind(dim=1), parts
        )

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        splits = self._splits(x)
        # Of shares the mean over splits and channels is 1 / R, of a single split's gates it is that gate.
        mean = self._shares(splits).mean(dim=(1, 2)).to(splits.dtype)
        return self._pooled(mean[:, None, None, None, None] * splits).to(x.dtype)
