"""Global context: one attention map for all positions, then a bottleneck transform of what it gathers.

Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCV Workshops 2019,
arXiv 1904.11492.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.pooling import wide_mean
from danseg.attention.parts.views import ShowsAttention, View, at_once
from danseg.ops.inputs import without_autocast

_POOLINGS = ("att", "avg")
_FUSIONS = ("channel_add", "channel_mul")


class GlobalContext(ShowsAttention, nn.Module):
    """GCNet's global context block.

    For feature map ``x`` with positions i, j::

        z = Σ_j softmax_j(conv_mask(x_j)) x_j                         # (C,), the same for every i
        t(z) = W₂ relu(LayerNorm(W₁ z))                               # one t for each kind of fusion
        out_i = x_i · σ(t_mul(z)) + t_add(z)                          # each only if fusion_types names it

    Paper: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCV
    Workshops 2019, arXiv 1904.11492, section 3.3. Parameter names are those of mmcv's ``ContextBlock``. As
    there and in the authors' code, the last convolution of each transform starts at zero: with additive
    fusion the block starts as the identity. The bottleneck has at least one channel; mmcv's may have none.

    Args:
        in_channels: channels of the input and of the output.
        ratio: channels of the bottleneck as a share of ``in_channels``, rounded down.
        pooling_type: ``"att"`` weighs positions by attention, ``"avg"`` weighs them equally.
        fusion_types: one or both of ``"channel_add"`` and ``"channel_mul"``.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for ``in_channels`` below 1, a ratio that is not positive, an unknown pooling or fusion.
    """

    def __init__(
        self,
        in_channels: int,
        ratio: float = 1 / 4,
        pooling_type: str = "att",
        fusion_types: Sequence[str] = ("channel_add",),
    ) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        if ratio <= 0:
            raise ValueError(f"ratio must be above 0, got {ratio}")
        if pooling_type not in _POOLINGS:
            raise ValueError(f"pooling_type must be one of {_POOLINGS}, got {pooling_type!r}")
        if not fusion_types or not set(fusion_types) <= set(_FUSIONS):
            raise ValueError(f"fusion_types must be a tuple from {_FUSIONS}, got {fusion_types!r}")
        self.in_channels = in_channels
        self.pooling_type = pooling_type
        planes = max(1, int(in_channels * ratio))
        if pooling_type == "att":
            self.conv_mask = nn.Conv2d(in_channels, 1, 1)
        self.channel_add_conv = _bottleneck(in_channels, planes) if "channel_add" in fusion_types else None
        self.channel_mul_conv = _bottleneck(in_channels, planes) if "channel_mul" in fusion_types else None
        self.init_weights()

    def init_weights(self) -> None:
        """Set the last convolution of each transform to zero, and draw the map's convolution at random."""
        if self.pooling_type == "att":
            nn.init.kaiming_normal_(self.conv_mask.weight, mode="fan_in", nonlinearity="relu")
            if self.conv_mask.bias is not None:
                nn.init.zeros_(self.conv_mask.bias)
        for transform in (self.channel_add_conv, self.channel_mul_conv):
            if transform is not None:
                for parameter in transform[-1].parameters():
                    nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        check_feature_map(self, x)
        context = self._context(x)
        out = x
        if self.channel_mul_conv is not None:
            out = out * self.channel_mul_conv(context).sigmoid().to(x.dtype)
        if self.channel_add_conv is not None:
            out = out + self.channel_add_conv(context).to(x.dtype)
        return out

    def _context(self, x: Tensor) -> Tensor:
        """The mean of ``x`` over positions, weighted by the map, as (B, C, 1, 1)."""
        if self.pooling_type == "avg":
            return wide_mean(x, (2, 3))
        weight = self.attention_map(x).flatten(1).unsqueeze(2)  # (B, N, 1)
        with without_autocast(x):
            context = x.flatten(2).to(weight.dtype) @ weight  # (B, C, 1)
        return context.unsqueeze(3).to(x.dtype)

    def attention_map(self, x: Tensor) -> Tensor:
        """What every position attends to: the block has one map for all of them.

        Args:
            x: ``(B, C, H, W)``, the module's input.

        Returns:
            ``(B, 1, H, W)`` in at least float32; each H x W slice sums to 1. With average pooling it is the
            same number everywhere.
        """
        check_feature_map(self, x)
        if self.pooling_type == "avg":
            wide = torch.promote_types(x.dtype, torch.float32)
            return torch.full_like(x[:, :1], 1 / x[0, 0].numel(), dtype=wide)
        energy = self.conv_mask(x).flatten(2)  # (B, 1, N)
        energy = energy.to(torch.promote_types(energy.dtype, torch.float32))
        return energy.softmax(dim=2).unflatten(2, x.shape[2:])

    def attention_views(self) -> tuple[View, ...]:
        views = (View("everywhere", at_once(self.attention_map)),)
        if self.channel_mul_conv is None:
            return views
        return (*views, View("channels", at_once(self._channel_gates), "channels", "gate"))

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        if self.channel_mul_conv is None:
            return x
        return x * self._channel_gates(x).mean(dim=2)[..., None, None].to(x.dtype)

    def _channel_gates(self, x: Tensor) -> Tensor:
        """``σ(t_mul(z))`` of each channel, as (B, 1, C)."""
        check_feature_map(self, x)
        transform: Any = self.channel_mul_conv
        energy = transform(self._context(x))
        return energy.to(torch.promote_types(energy.dtype, torch.float32)).sigmoid().flatten(2).mT


def _bottleneck(channels: int, planes: int) -> nn.Sequential:
    # The order of the layers, and so their parameter names, are those of mmcv's ContextBlock.
    return nn.Sequential(
        nn.Conv2d(channels, planes, 1),
        nn.LayerNorm((planes, 1, 1)),
        nn.ReLU(),
        nn.Conv2d(planes, channels, 1),
    )
