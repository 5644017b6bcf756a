"""Compact generalized non-local block: attention between all positions of all channels.

Yue et al., "Compact Generalized Non-local Network", NeurIPS 2018, arXiv 1810.13125.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from danseg.attention.parts.arguments import check_at_least_one, check_feature_map
from danseg.attention.parts.query_positions import flat_index
from danseg.attention.parts.views import ShowsAttention, View
from danseg.ops.inputs import without_autocast

KERNELS = ("dot", "gaussian", "rbf")


class CompactGeneralizedNonLocal(ShowsAttention, nn.Module):
    """Every channel at every position gathers from all channels of its group at all positions.

    The channels form groups. a and b run over the n entries of one group: all its positions *and*
    channels. For feature map ``x``::

        θ, φ, g = theta(x), phi(x), g(x)                                   # 1x1 convolutions
        out_a = x_a + norm(conv_out(Σ_b k(θ_a, φ_b) g_b))                  # over √n with use_scale
        dot:       k = θ_a φ_b
        gaussian:  k = exp(-2γ) Σ_{p ≤ order} (2γ)^p / p! · (θ_a φ_b)^p
        rbf:       k = exp(-γ θ_a²) exp(-γ φ_b²) Σ_{p ≤ order} (2γ)^p / p! · (θ_a φ_b)^p

    Each term is the product of a factor in a and a factor in b. So the sums over b are one number per
    group for ``dot`` and ``order + 1`` numbers for the others, and the block is linear in the number of
    positions.

    Paper: Yue et al., "Compact Generalized Non-local Network", NeurIPS 2018, arXiv 1810.13125,
    section 3.3. ``rbf`` is the paper's kernel, the Taylor series of exp(-γ (θ_a - φ_b)²). ``gaussian`` is
    what the authors' code computes in its place (their CGNLx): the factor in front of the series is the
    constant that it would be if θ_a² and φ_b² were 1. ``dot`` is the kernel of the authors' networks named
    CGNL. Their networks do not divide by √n. The group normalisation after ``conv_out`` has the same groups
    and cancels factors of a whole group up to its eps, but not their sign: with ``dot`` a group gives θ,
    normalised, with the sign of Σ_b φ_b g_b. The layers ``theta``, ``phi``, ``g``, ``conv_out`` and
    ``norm`` are the code's ``t``, ``p``, ``g``, ``z`` and ``gn``.

    Args:
        in_channels: channels C of the input and of the output.
        reduction: θ, φ and g have C / reduction channels, at least 1.
        groups: number of groups of channels; the greatest common divisor of it and C and C / reduction
            is used.
        order: highest power of the series, 3 by default; ``dot`` has no series and does not take it.
        gamma: γ, the sharpness of the kernel, 1e-4 by default; ``dot`` does not take it.
        kernel: ``dot``, ``gaussian`` or ``rbf``.
        use_scale: divide the sums by √n, which keeps magnitudes in range.

    The last normalisation starts at zero, so that the block starts as the identity.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a count below 1, a γ that is not positive, an unknown kernel, or an argument that
            the kernel does not take.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        groups: int = 8,
        order: int | None = None,
        gamma: float | None = None,
        kernel: str = "dot",
        use_scale: bool = False,
    ) -> None:
        super().__init__()
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
        if kernel == "dot" and not (order is None and gamma is None):
            raise ValueError(
                f'kernel="dot" has no series: leave out order and gamma, got {order} and {gamma}, or set '
                'kernel="gaussian" or kernel="rbf"'
            )
        order = 3 if order is None else order
        gamma = 1e-4 if gamma is None else gamma
        check_at_least_one(in_channels=in_channels, reduction=reduction, groups=groups, order=order)
        if not gamma > 0:
            raise ValueError(f"gamma must be positive, got {gamma}")
        inter_channels = max(1, in_channels // reduction)
        self.groups = math.gcd(groups, inter_channels, in_channels)
        self.in_channels = in_channels
        self.order = order
        self.gamma = gamma
        self.kernel = kernel
        self.use_scale = use_scale
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
        with without_autocast(x):
            theta, phi, g = (self._grouped(t.to(wide)) for t in (theta, phi, g))  # (B, groups, n)
            out = self._gather(theta, phi, g).reshape(x.shape[0], self.g.out_channels, *x.shape[2:])
            out = F.conv2d(out, self.conv_out.weight.to(wide), groups=self.groups)
            weight, bias = self.norm.weight.to(wide), self.norm.bias.to(wide)
            out = F.group_norm(out, self.groups, weight, bias, self.norm.eps)
        return x + out.to(x.dtype)

    def _gather(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """``Σ_b k(θ_a, φ_b) g_b`` of tensors (B, groups, n), without a tensor for all pairs."""
        if self.use_scale:
            g = g / g.shape[2] ** 0.5
        return functools.reduce(
            torch.add,
            (
                number * of_b.sum(dim=2, keepdim=True) * of_a
                for number, of_b, of_a in self._terms(theta, phi, g)
            ),
        )

    def _terms(self, theta: Tensor, phi: Tensor, g: Tensor) -> Iterator[tuple[float, Tensor, Tensor]]:
        """The terms of ``k(θ_a, φ_b) g_b``: a number, a factor in b, and a factor in a."""
        if self.kernel == "dot":
            yield 1.0, phi * g, theta
            return
        if self.kernel == "gaussian":
            weighted, power, factor = g, torch.ones_like(theta), math.exp(-2 * self.gamma)
        else:
            weighted, factor = (-self.gamma * phi.square()).exp() * g, 1.0
            power = (-self.gamma * theta.square()).exp()
        for p in range(self.order + 1):
            yield factor, weighted, power
            weighted, power, factor = weighted * phi, power * theta, factor * 2 * self.gamma / (p + 1)

    def attention_map(self, x: Tensor, positions: Sequence[tuple[int, int]]) -> Tensor:
        """The weights of the given positions for all others: means of ``k`` over channels.

        The block has a weight for every pair of a position *and channel* with another one of the same group.
        The weight of two positions is the mean of these over the channels of both, and over the groups. With
        ``dot`` it is the product of a number for the one and a number for the other, so that all maps of a
        group differ in a factor alone.

        Args:
            x: ``(B, C, H, W)``, the module's input.
            positions: P pairs (row, column) in the feature map.

        Returns:
            ``(B, P, H, W)`` in at least float32, of any sum and sign; over √n with ``use_scale``. Only the P
            rows are computed.

        Raises:
            ValueError: when a position lies outside the map, or none is given.
        """
        return self._rows(x)(positions)

    def _rows(self, x: Tensor, group: int | None = None) -> Callable[[Sequence[tuple[int, int]]], Tensor]:
        """Rows of one group's map, or of the mean of all."""
        check_feature_map(self, x)
        size = tuple(x.shape[2:])
        groups = slice(None) if group is None else slice(group, group + 1)
        theta, phi = self.theta(x), self.phi(x)
        wide = torch.promote_types(theta.dtype, torch.float32)
        with without_autocast(x):
            theta, phi = (self._grouped(t.to(wide))[:, groups] for t in (theta, phi))  # (B, groups, n)
            scale = theta.shape[2] ** -0.5 if self.use_scale else 1.0
            queries, keys = [], []
            for number, of_b, of_a in self._terms(theta, phi, torch.ones_like(phi)):
                queries.append(of_a.unflatten(2, (-1, math.prod(size))).mean(dim=2))  # (B, groups, N)
                keys.append(scale * number * of_b.unflatten(2, (-1, math.prod(size))).mean(dim=2))
            query, key = torch.stack(queries, dim=3), torch.stack(keys, dim=3)  # (B, groups, N, terms)

        def rows(positions: Sequence[tuple[int, int]]) -> Tensor:
            index = flat_index(positions, size, x.device)
            with without_autocast(x):
                return (query[:, :, index] @ key.mT).mean(dim=1).unflatten(2, size)

        return rows

    def attention_views(self) -> tuple[View, ...]:
        views = (View("position", self._rows, values="weights"),)
        if self.groups == 1:
            return views
        return (
            *views,
            *(
                View("position", functools.partial(self._rows, group=group), f"group {group + 1}", "weights")
                for group in range(self.groups)
            ),
        )

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return x

    def _grouped(self, x: Tensor) -> Tensor:
        """(B, C', H, W) to (B, groups, n), where n is H · W times the channels of a group."""
        return x.reshape(x.shape[0], self.groups, x.shape[1] // self.groups * math.prod(x.shape[2:]))

    def extra_repr(self) -> str:
        series = "" if self.kernel == "dot" else f", order={self.order}, gamma={self.gamma}"
        return f"kernel={self.kernel}, groups={self.groups}{series}, use_scale={self.use_scale}"
