"""Convolutional block attention: a gate over channels, then one over positions.

Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv 1807.06521.
"""

from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.channel_gate import as_row
from danseg.attention.parts.pooling import wide_mean
from danseg.attention.parts.spatial_gate import SpatialGate
from danseg.attention.parts.views import ShowsAttention, View, at_once


class CBAM(ShowsAttention, nn.Module):
    """CBAM's channel gate and spatial gate, one after the other.

    For feature map ``x``::

        y = σ(mlp(mean_hw x) + mlp(max_hw x)) · x                     # one gate per channel
        out = σ(BN(f([max_c y; mean_c y]))) · y                       # one gate per position

    Paper: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv 1807.06521,
    equations 1 to 3. Three details follow the authors' code. The convolution f has a batch normalisation
    after it, which equation 3 does not have; without it the gate's level depends on the size of the
    activations. In f's input, the maximum comes before the mean. The layers of the mlp have biases. Two do
    not: the mlp's layers are 1x1 convolutions (the code's ``ChannelGate.mlp.1`` and ``.3`` are ``mlp.0`` and
    ``mlp.2``, with two more dimensions), and the normalisation's momentum is PyTorch's 0.1, not 0.01, which
    matters in training alone.

    Args:
        in_channels: channels of the input and of the output.
        reduction: the mlp's hidden layer has ``in_channels // reduction`` channels, at least 1.
        kernel_size: of the spatial gate's convolution, odd.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for ``in_channels`` or ``reduction`` below 1, or a ``kernel_size`` that is not odd.
    """

    def __init__(self, in_channels: int, reduction: int = 16, kernel_size: int = 7) -> None:
        super().__init__()
        if in_channels < 1 or reduction < 1:
            raise ValueError(
                f"in_channels and reduction must be at least 1, got {in_channels} and {reduction}"
            )
        self.in_channels = in_channels
        hidden = max(1, in_channels // reduction)
        self.mlp = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, in_channels, 1)
        )
        self.spatial_gate = SpatialGate(kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        y = x * self._channel_gate(x)
        return y * self.spatial_gate(y)

    def _channel_gate(self, x: Tensor) -> Tensor:
        check_feature_map(self, x)
        energy = self.mlp(wide_mean(x, (2, 3))) + self.mlp(x.amax((2, 3), keepdim=True))  # (B, C, 1, 1)
        return energy.sigmoid().to(x.dtype)

    def attention_map(self, x: Tensor) -> Tensor:
        """The spatial gate ``(B, 1, H, W)``, between 0 and 1, for the module's input ``x`` (B, C, H, W)."""
        return self.spatial_gate(x * self._channel_gate(x))

    def attention_views(self) -> tuple[View, ...]:
        """The spatial gate, and the gate over the channels, "channels"."""
        return (
            View("everywhere", at_once(self.attention_map), values="gate"),
            View("channels", at_once(lambda x: as_row(self._channel_gate(x))), "channels", "gate"),
        )

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        channels = self._channel_gate(x)
        positions = self.spatial_gate(x * channels)
        return x * (wide_mean(channels, 1) * wide_mean(positions, (2, 3)))
