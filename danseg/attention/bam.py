"""Bottleneck attention: a channel branch and a spatial branch side by side, summed into one gate.

Park et al., "BAM: Bottleneck Attention Module", BMVC 2018, arXiv 1807.06514.
"""

from torch import Tensor, nn

from danseg.attention.parts.arguments import check_batch_norm, check_feature_map
from danseg.attention.parts.pooling import wide_mean


class BAM(nn.Module):
    """BAM's gate over channels and positions at once, with its residual.

    For feature map ``x``::

        M_c = BN(W₂ relu(W₁ mean_hw x))                               # (C, 1, 1)
        M_s = BN(f₃(f₂(f₁(f₀(x)))))                                   # (1, H, W)
        out = x · (1 + σ(M_c + M_s))

    f₀ and f₃ are 1x1 convolutions, f₁ and f₂ dilated 3x3 ones.

    Paper: Park et al., "BAM: Bottleneck Attention Module", BMVC 2018, arXiv 1807.06514, equations 1
    to 4. As in the paper, the branches are added, and a normalisation at their ends makes the two terms
    comparable. The authors' code multiplies them instead, σ(M_c · M_s), without that normalisation. The
    paper leaves open what follows f₀, f₁ and f₂: here it is batch normalisation and ReLU, as in that code.

    In training the channel branch is normalised over the batch alone, so it needs at least two images.

    Args:
        in_channels: channels of the input and of the output.
        reduction: both branches work with ``in_channels // reduction`` channels, at least 1.
        dilation: of the two 3x3 convolutions.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for an argument below 1, and in training for a batch of one image.
    """

    def __init__(self, in_channels: int, reduction: int = 16, dilation: int = 4) -> None:
        super().__init__()
        if in_channels < 1 or reduction < 1 or dilation < 1:
            raise ValueError(
                "in_channels, reduction and dilation must be at least 1, "
                f"got {in_channels}, {reduction} and {dilation}"
            )
        self.in_channels = in_channels
        hidden = max(1, in_channels // reduction)
        # No bias before a normalisation, which would cancel it.
        self.channel = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, in_channels, 1, bias=False),
            nn.BatchNorm2d(in_channels),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1, bias=False),
            nn.BatchNorm2d(1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        check_feature_map(self, x)
        check_batch_norm(self.channel[-1], x.shape[0])
        gate = (self.channel(wide_mean(x, (2, 3))) + self.spatial(x)).sigmoid()  # (B, C, H, W)
        return x * (1 + gate.to(x.dtype))

    def attention_map(self, x: Tensor) -> Tensor:
        """The spatial branch ``σ(M_s)`` as ``(B, 1, H, W)``, for the module's input ``x`` (B, C, H, W).

        This is the gate of a channel whose ``M_c`` is 0. Other channels add their ``M_c`` before the sigmoid.
        """
        check_feature_map(self, x)
        return self.spatial(x).sigmoid()
