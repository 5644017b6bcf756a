"""Compact generalized non-local block: attention between all positions of all channels.

Yue et al., "Compact Generalized Non-local Network", NeurIPS 2018, arXiv 1810.13125.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from danseg.attention.parts.arguments import check_feature_map


class CompactGeneralizedNonLocal(nn.Module):
    """Every channel at every position gathers from all channels of its group at all positions.

    The channels form groups. a and b run over the n entries of one group: all its positions *and*
    channels. For feature map ``x``::

        θ, φ, g = theta(x), phi(x), g(x)                                   # 1x1 convolutions
        k(θ_a, φ_b) = exp(-γ θ_a²) exp(-γ φ_b²) Σ_{p ≤ order} (2γ)^p / p! · (θ_a φ_b)^p
        out_a = x_a + norm(conv_out(Σ_b k(θ_a, φ_b) g_b / √n))

    The kernel is the Taylor series of the Gaussian radial basis function exp(-γ (θ_a - φ_b)²). Each
    of its terms is the product of a factor in a and a factor in b. The sums over b are therefore
    ``order + 1`` numbers per group, and the block is linear in the number of positions.

    Paper: Yue et al., "Compact Generalized Non-local Network", NeurIPS 2018, arXiv 1810.13125,
    section 3.3. The paper's other kernel, the dot product, is left out: it multiplies θ by one
    number per group, which the group normalisation that follows cancels.
    Division by √n, as in the authors' code, keeps magnitudes in range.

    Args:
        in_channels: channels C of the input and of the output.
        reduction: θ, φ and g have C / reduction channels, at least 1.
        groups: number of groups of channels; the greatest common divisor of it and C and C / reduction
            is used.
        order: highest power of the Taylor series.
        gamma: γ, the sharpness of the kernel.

    The last normalisation starts at zero, so that the block starts as the identity.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a count below 1, or a γ that is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        groups: int = 8,
        order: int = 3,
        gamma: float = 1e-4,
    ) -> None:
        super().__init__()
        if min(in_channels, reduction, groups, order) < 1:
            raise ValueError(
                f"in_channels, reduction, groups and order must be at least 1, got {in_channels}, "
                f"{reduction}, {groups} and {order}"
            )
        if not gamma > 0:
            raise ValueError(f"gamma must be positive, got {gamma}")
        inter_channels = max(1, in_channels // reduction)
        self.groups = math.gcd(groups, inter_channels, in_channels)
        self.in_channels = in_channels
        self.order = order
        self.gamma = gamma
        self.theta = nn.Conv2d(in_channels, inter_channels, 1, bias=False)
        self.phi = nn.Conv2d(in_channels, inter_channels, 1, bias=False)
        self.g = nn.Conv2d(in_channels, inter_channels, 1, bias=False)
        self.conv_out = nn.Conv2d(inter_channels, in_channels, 1, groups=self.groups, bias=False)
        self.norm = nn.GroupNorm(self.groups, in_channels)
        self.init_weights()

    def init_weights(self) -> None:
        """Set the last normalisation to zero: the block starts as the identity."""
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        check_feature_map(self, x)
        theta, phi, g = self.theta(x), self.phi(x), self.g(x)
        # The sums over a group's positions and channels, and the powers, can exceed float16's range.
        wide = torch.promote_types(theta.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            theta, phi, g = (self._grouped(t.to(wide)) for t in (theta, phi, g))  # (B, groups, n)
            weighted = (-self.gamma * phi.square()).exp() * g / phi.shape[2] ** 0.5
            out, power, factor = torch.zeros_like(theta), torch.ones_like(theta), 1.0
            for p in range(self.order + 1):
                out = out + factor * weighted.sum(dim=2, keepdim=True) * power
                weighted, power, factor = weighted * phi, power * theta, factor * 2 * self.gamma / (p + 1)
            out = (out * (-self.gamma * theta.square()).exp()).flatten(1).unflatten(1, (-1, *x.shape[2:]))
            out = F.conv2d(out, self.conv_out.weight.to(wide), groups=self.groups)
            weight, bias = self.norm.weight.to(wide), self.norm.bias.to(wide)
            out = F.group_norm(out, self.groups, weight, bias, self.norm.eps)
        return x + out.to(x.dtype)

    def _grouped(self, x: Tensor) -> Tensor:
        """(B, C', H, W) to (B, groups, n), where n is H · W times the channels of a group."""
        return x.unflatten(1, (self.groups, -1)).flatten(2)

    def extra_repr(self) -> str:
        return f"groups={self.groups}, order={self.order}, gamma={self.gamma}"
