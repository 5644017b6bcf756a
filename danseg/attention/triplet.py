"""Triplet attention: a gate over each pair of the three dimensions channel, height and width.

Misra et al., "Rotate to Attend: Convolutional Triplet Attention Module", WACV 2021, arXiv 2010.03045.
"""

from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.channel_gate import as_row
from danseg.attention.parts.pooling import wide_mean
from danseg.attention.parts.spatial_gate import SpatialGate
from danseg.attention.parts.views import ShowsAttention, View, at_once


class TripletAttention(ShowsAttention, nn.Module):
    """Triplet attention: the mean of three gated copies of the input.

    For feature map ``x``, with a gate ``g(x) = σ(BN(f([max; mean])))`` that pools over one dimension
    and convolves over the other two::

        out = (g_ch(x) · x + g_cw(x) · x + g_hw(x) · x) / 3           # pooled over w, h and c

    Paper: Misra et al., "Rotate to Attend: Convolutional Triplet Attention Module", WACV 2021,
    arXiv 2010.03045, section 3.2. Parameter names are those of the authors' module
    (their ImageNet networks contain an older one, with ``ChannelGateH``, ``ChannelGateW`` and
    ``SpatialGate``). Its normalisations have a momentum of 0.01; here it is PyTorch's 0.1, which matters in
    training alone. Its switch ``no_spatial``, the mean of the first two copies, is left out.

    Args:
        in_channels: channels of the input and of the output; no weight depends on it.
        kernel_size: of the three convolutions, odd.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for ``in_channels`` below 1, or a ``kernel_size`` that is even or below 1.
    """

    def __init__(self, in_channels: int, kernel_size: int = 7) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        self.in_channels = in_channels
        self.cw = SpatialGate(kernel_size)
        self.hc = SpatialGate(kernel_size)
        self.hw = SpatialGate(kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        cw, hc, hw = self._gates(x)
        return x * ((cw + hc + hw) / 3)

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_feature_map(self, x)
        cw = self.cw(x.transpose(1, 2)).transpose(1, 2)  # pooled over H: (B, C, 1, W)
        hc = self.hc(x.transpose(1, 3)).transpose(1, 3)  # pooled over W, convolved as (H, C): (B, C, H, 1)
        hw = self.hw(x)  # pooled over C: (B, 1, H, W)
        return cw, hc, hw

    def attention_map(self, x: Tensor) -> Tensor:
        """The gate over positions ``(B, 1, H, W)``, between 0 and 1, for the module's input ``x``."""
        check_feature_map(self, x)
        return self.hw(x)

    def attention_views(self) -> tuple[View, ...]:
        """The gate over positions; and the factor of all three gates, averaged.

        The two other gates lie over a channel axis and one of the map's, and are neither maps nor weights of
        channels. But the factor that ``x`` gets is the mean of the three gates. Its average over the channels
        is a map, "mean gate", and over the positions a row, "channels"; all three gates are in both.
        """
        return (
            View("everywhere", at_once(self.attention_map), values="gate"),
            View("everywhere", at_once(lambda x: self._mean_gate(x, (1,))), "mean gate", "gate"),
            View("channels", at_once(lambda x: as_row(self._mean_gate(x, (2, 3)))), "channels", "gate"),
        )

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return x * self._mean_gate(x, (1, 2, 3))

    def _mean_gate(self, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        cw, hc, hw = (wide_mean(gate, dims) for gate in self._gates(x))
        return (cw + hc + hw) / 3
