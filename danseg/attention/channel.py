"""Channel attention (CAM): every channel gathers from all channels.

Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv 1809.02983.
"""

import torch
from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.scale import ResidualScale
from danseg.attention.parts.views import ShowsAttention, View, at_once
from danseg.ops.inputs import without_autocast


class ChannelAttention(ShowsAttention, nn.Module):
    """DANet's channel attention module.

    For feature map ``x`` with channels i, j, seen as ``A`` (C, N)::

        E = A Aᵀ                                                    # (C, C)
        out_j = gamma.scale · Σ_i softmax_i(max_i E_ji - E_ji) A_i + A_j

    Paper: Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019,
    arXiv 1809.02983, equations 3 and 4. **The sign differs from the paper**: equation 3
    reads softmax(E), which favours the most similar channels, while the authors' code,
    and mmseg after it, take softmax(max E - E), which favours the *least* similar ones.
    Published weights were trained with the latter, so that is what this module computes.

    Memory is linear in the number of positions: the map is C x C.

    Args:
        in_channels: channels of the input and of the output; the scale is the only weight.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for ``in_channels`` below 1.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        self.in_channels = in_channels
        self.gamma = ResidualScale()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        weight = self.attention_map(x).to(x.dtype)  # (B, C, C)
        out = torch.bmm(weight, x.flatten(2))  # (B, C, N)
        return self.gamma(x, out.unflatten(2, x.shape[2:]))

    def attention_map(self, x: Tensor) -> Tensor:
        """Weight of channel i in the new channel j, as ``(B, C, C)`` [j, i]; rows sum to 1.

        The weights are at least float32: an energy sums over all positions and can exceed float16's range.
        """
        check_feature_map(self, x)
        with without_autocast(x):
            a = x.to(torch.promote_types(x.dtype, torch.float32)).flatten(2)  # (B, C, N)
            energy = torch.bmm(a, a.transpose(1, 2))  # (B, C, C)
        return (energy.amax(dim=-1, keepdim=True) - energy).softmax(dim=-1)

    def attention_views(self) -> tuple[View, ...]:
        return (View("channels", at_once(self.attention_map)),)

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return x

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}"
