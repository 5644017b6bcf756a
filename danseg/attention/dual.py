"""Dual attention: position and channel attention side by side, summed.

Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv 1809.02983.
"""

from torch import Tensor, nn

from danseg.attention.channel import ChannelAttention
from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.position import PositionAttention


class DualAttention(nn.Module):
    """DANet's two modules on one input, summed.

    For feature map ``x``::

        out = PositionAttention(x) + ChannelAttention(x)

    Paper: Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019,
    arXiv 1809.02983, section 3.1. The paper puts 3x3 convolutions before and after each
    module; those belong to the head (:class:`danseg.heads.DANetHead`). As in the paper,
    each module has its own residual, so the input enters the sum twice. Each shows its attention itself.

    Args:
        in_channels: channels of the input and of the output.
        query_channels: as in :class:`PositionAttention`.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.
    """

    def __init__(self, in_channels: int, query_channels: int | None = None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.pam = PositionAttention(in_channels, query_channels)
        self.cam = ChannelAttention(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        check_feature_map(self, x)
        return self.pam(x) + self.cam(x)
