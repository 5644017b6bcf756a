"""Squeeze and excitation: gates on the channels, computed from their means over the whole map.

Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, arXiv 1709.01507.
"""

from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.channel_gate import ChannelGate
from danseg.attention.parts.pooling import wide_mean


class SqueezeExcitation(ChannelGate):
    """SENet's channel gate.

    For feature map ``x`` with N positions i::

        z = Σ_i x_i / N                                               # (C,)
        out_i = σ(W₂ relu(W₁ z)) · x_i

    Paper: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, arXiv 1709.01507, equations 2 to 4.
    The two fully connected layers have biases, as in the authors' code. Here they are 1x1 convolutions,
    whose weights have the same layout as timm's and mmseg's.

    Args:
        in_channels: channels of the input and of the output.
        reduction: there are ``in_channels // reduction`` channels between the two layers, at least 1.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for ``in_channels`` or ``reduction`` below 1.
    """

    def __init__(self, in_channels: int, reduction: int = 16) -> None:
        super().__init__()
        if in_channels < 1 or reduction < 1:
            raise ValueError(
                f"in_channels and reduction must be at least 1, got {in_channels} and {reduction}"
            )
        self.in_channels = in_channels
        hidden = max(1, in_channels // reduction)
        self.fc1 = nn.Conv2d(in_channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, in_channels, 1)

    def _gate(self, x: Tensor) -> Tensor:
        check_feature_map(self, x)
        gate = self.fc2(self.fc1(wide_mean(x, (2, 3))).relu()).sigmoid()  # (B, C, 1, 1)
        return gate.to(x.dtype)
