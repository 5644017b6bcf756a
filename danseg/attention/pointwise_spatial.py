"""Point-wise spatial attention (PSANet): positions collect from, and distribute to, all others.

Zhao et al., "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.conv_norm import ConvNorm
from danseg.attention.parts.query_positions import flat_index, positions_first
from danseg.attention.parts.scale import ResidualScale
from danseg.attention.parts.views import ShowsAttention, View
from danseg.ops import attention as softmax_attention
from danseg.ops.exported_resize import exported_grid, exported_resize
from danseg.ops.exporting import exporting
from danseg.ops.pointwise_spatial_attention import KINDS, pointwise_spatial_attention, position_energies
from danseg.ops.products import dot_product, energies

TYPES = (*KINDS, "bi-direction")


class PointwiseSpatialContext(ShowsAttention):
    """The layers of PSANet up to the resized projection, which the module and the head inherit.

    The layers have the names that they have in mmseg's head.
    """

    align_corners = True  # as in the authors' code; a head has its own value
    reduce: nn.Module

    def build_context(
        self,
        in_channels: int,
        channels: int,
        mask_size: tuple[int, int],
        psa_type: str,
        compact: bool,
        shrink_factor: int,
        normalization_factor: float | None,
        psa_softmax: bool,
        norm_layer: Callable[[int], nn.Module] | None,
        *,
        proj_padding: int = 0,
        swap_compact: bool = False,
    ) -> None:
        """Make the layers; arguments as in :class:`PointwiseSpatialAttention` and its head."""
        if psa_type not in TYPES:
            raise ValueError(f"psa_type must be one of {', '.join(TYPES)}, got {psa_type!r}")
        if min(in_channels, channels, shrink_factor, *mask_size) < 1:
            raise ValueError(
                f"in_channels, channels, shrink_factor and mask_size must be at least 1, got {in_channels}, "
                f"{channels}, {shrink_factor} and {tuple(mask_size)}"
            )
        self.mask_size = (mask_size[0], mask_size[1])
        self.psa_type = psa_type
        self.compact = compact
        self.swap_compact = swap_compact
        self.shrink_factor = shrink_factor
        self.psa_softmax = psa_softmax
        self.proj_padding = proj_padding
        if normalization_factor is None:
            normalization_factor = mask_size[0] * mask_size[1]
        self.normalization_factor = normalization_factor
        both = psa_type == "bi-direction"
        for suffix in ("", "_p") if both else ("",):
            reduce = ConvNorm(in_channels, channels, norm_layer=norm_layer, relu=True)
            attention = nn.Sequential(
                ConvNorm(channels, channels, norm_layer=norm_layer, relu=True),
                nn.Conv2d(channels, mask_size[0] * mask_size[1], 1, bias=False),
            )
            setattr(self, f"reduce{suffix}", reduce)
            setattr(self, f"attention{suffix}", attention)
        self.proj = ConvNorm(
            channels * (2 if both else 1), in_channels, padding=proj_padding, norm_layer=norm_layer, relu=True
        )

    @property
    def attention_entry(self) -> nn.Module:
        """The child that receives the attention's input ``x`` on every way through the module or head."""
        return self.reduce

    @property
    def attention_exit(self) -> nn.Module:
        """The projection of what all positions gather, which the module scales and the head concatenates."""
        return self.proj

    def attention_views(self) -> tuple[View, ...]:
        values = "shares" if self.psa_softmax else "weights"
        views = (View("position", self._rows, values=values),)
        if self.psa_type != "bi-direction":
            return views
        return (*views, *(View("position", partial(self._rows, kinds=(k,)), k, values) for k in KINDS))

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return torch.zeros_like(out)

    def context(self, x: Tensor) -> Tensor:
        """The features that all positions gather, projected and resized to the size of ``x`` (B, C, H, W)."""
        check_feature_map(self, x)
        gathered = [self._gather(*branch) for branch in self._branches(x, self._kinds())]
        out = self.proj(torch.cat(gathered, dim=1) / self.normalization_factor)
        return self._resized(out, x.shape[2:], self._shrunk(x.shape[2:])[1])

    def _gather(self, features: Tensor, hidden: Tensor, weight: Tensor, kind: str) -> Tensor:
        """The features (B, C, h, w) that each position of the grid gathers."""
        if not self.compact:
            return pointwise_spatial_attention(
                features, hidden, weight, self.mask_size, kind, self.psa_softmax
            )
        query, key = (t.to(features.dtype) for t in self._compact_pair(hidden, weight, kind))
        value = positions_first(features)  # (B, N, C)
        gather = softmax_attention if self.psa_softmax else dot_product
        out = gather(query, key, value)
        return out.transpose(1, 2).unflatten(2, features.shape[2:])

    def _kinds(self) -> tuple[str, ...]:
        return KINDS if self.psa_type == "bi-direction" else (self.psa_type,)

    def _branches(self, x: Tensor, kinds: Sequence[str]) -> list[tuple[Tensor, Tensor, Tensor, str]]:
        """For some branches: shrunk features, and the hidden features, weight and kind of the mask."""
        size, align_corners = self._shrunk(x.shape[2:])
        branches = []
        for suffix, kind in zip(("", "_p"), self._kinds(), strict=False):
            if kind not in kinds:
                continue
            features = getattr(self, f"reduce{suffix}")(x)
            if self.shrink_factor != 1:
                features = self._resized(features, size, align_corners)
            attention = getattr(self, f"attention{suffix}")
            branches.append((features, attention[0](features), attention[1].weight.flatten(1), kind))
        return branches

    def _resized(self, x: Tensor, size: Sequence[int], align_corners: Any) -> Tensor:
        if exporting() and not self.compact:
            return exported_resize(x, size, align_corners)
        return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

    def _shrunk(self, size: Sequence[int]) -> tuple[tuple[int, int], Any]:
        """Size of the attention's grid for a map of ``size``, and whether resizing to it aligns corners.

        mmseg's rule: corners are aligned if the factor divides neither side, as with sides of 8n + 1.
        While a model is exported, sizes are unknown, and so is whether. (A ``compact`` one has a single
        size.)
        """
        factor, (height, width) = self.shrink_factor, size
        if factor == 1:
            return (height, width), self.align_corners
        if exporting() and not self.compact:
            return exported_grid(factor, height, width)
        if height % factor and width % factor:
            return ((height - 1) // factor + 1, (width - 1) // factor + 1), True
        return (max(1, height // factor), max(1, width // factor)), False

    def _compact_pair(self, hidden: Tensor, weight: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """Queries and keys (B, N, K) of ``compact``, where the mask's cells are the grid's positions."""
        if self.mask_size != hidden.shape[2:]:
            height, width = hidden.shape[2:]
            raise ValueError(
                f"compact=True needs a mask as large as the attention's grid, which is {height}x{width}, got "
                f"mask_size={self.mask_size}"
            )
        by_position = positions_first(hidden)  # (B, N, K)
        by_cell = weight.to(hidden.dtype).expand_as(by_position)
        if self.swap_compact and self.psa_type != "bi-direction":
            kind = "distribute" if kind == "collect" else "collect"
        return (by_position, by_cell) if kind == "collect" else (by_cell, by_position)

    def attention_map(self, x: Tensor, positions: Sequence[tuple[int, int]]) -> Tensor:
        """What the given positions gather from; with both branches, the mean of the two.

        A position of the feature map is resized from a few cells of the attention's grid. Its map is that of
        the cell that has the largest part in it.

        Args:
            x: ``(B, C, H, W)``, the module's input.
            positions: P pairs (row, column) in the feature map.

        Returns:
            ``(B, P, h, w)`` on the attention's grid, which is ``shrink_factor`` times smaller than
            the map, in at least float32. With ``psa_softmax`` each slice sums to 1. Only the P rows are
            computed.

        Raises:
            ValueError: when a position lies outside the map, or none is given.
        """
        return self._rows(x)(positions)

    def _rows(self, x: Tensor, kinds: Sequence[str] = KINDS) -> Callable[[Sequence[tuple[int, int]]], Tensor]:
        """Rows of the map of those branches that are of some kinds, or of their mean."""
        check_feature_map(self, x)
        size, grid = tuple(x.shape[2:]), self._shrunk(x.shape[2:])[0]
        # A copy of the weight, which training may change before the rows are asked for.
        energies_of = [
            self._energies(hidden, weight.clone(), kind)
            for _, hidden, weight, kind in self._branches(x, kinds)
        ]

        def rows(positions: Sequence[tuple[int, int]]) -> Tensor:
            flat_index(positions, size, x.device)  # raises if a position lies outside the map
            index = flat_index([self._cell(position, size) for position in positions], grid, x.device)
            maps = [of(index) for of in energies_of]  # (B, P, N)
            maps = [one.softmax(dim=-1) for one in maps] if self.psa_softmax else maps
            return torch.stack(maps).mean(dim=0).unflatten(2, grid)

        return rows

    def _energies(self, hidden: Tensor, weight: Tensor, kind: str) -> Callable[[Tensor], Tensor]:
        """A branch's energies (B, P, N), as a function of P indices of queries."""
        if not self.compact:
            return partial(position_energies, hidden, weight, self.mask_size, kind)
        query, key = self._compact_pair(hidden, weight, kind)
        return lambda index: energies(query[:, index], key)

    def _cell(self, position: tuple[int, int], size: tuple[int, ...]) -> tuple[int, int]:
        """The cell of the grid that has the largest part in a position's features.

        What is resized to the feature map is the projection, whose grid has ``proj_padding`` more cells on
        each side.
        """
        grid, aligned = self._shrunk(size)
        row, column = (
            _nearest(place, side, cells + 2 * self.proj_padding, aligned) - self.proj_padding
            for place, side, cells in zip(position, size, grid, strict=True)
        )
        return min(max(row, 0), grid[0] - 1), min(max(column, 0), grid[1] - 1)


def _nearest(place: int, side: int, cells: int, aligned: bool) -> int:
    """The one of ``cells`` that is nearest to one of ``side`` places which are interpolated between them."""
    at = place * (cells - 1) / max(1, side - 1) if aligned else (place + 0.5) * cells / side - 0.5
    return math.ceil(at - 0.5)


class PointwiseSpatialAttention(PointwiseSpatialContext, nn.Module):
    """PSANet's attention, with nothing to compile: learned weights for every pair of positions.

    The attention works on a grid ``shrink_factor`` times smaller than the map. m_i is the mask of
    weights that position i predicts for the positions around it. For feature map ``x``::

        z, m = reduce(x), attention(reduce(x))                             # z', m': the layers with _p
        collect_i = Σ_j softmax_j(m_i[j - i]) z_j
        distribute_i = Σ_j softmax_j(m'_j[i - j]) z'_j
        out = x + gamma.scale · resize(proj([collect, distribute]))

    Paper: Zhao et al., "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018,
    no arXiv id. The paper concatenates ``x`` and the projection, as :class:`danseg.heads.PSANetHead`
    does. This module keeps the shape: it adds them, with a factor that starts at 0. Positions outside
    a mask have the energy 0 and take part in the softmax, as in the authors' code and in mmseg.
    Parameter names are mmseg's. The grid is sized and resized as in mmseg. On maps with sides of
    ``shrink_factor`` · n + 1 positions, and the authors' code takes no others, that code does the same.

    With ``compact`` and one direction, mmseg's head computes the other direction than the one it is asked
    for. This module computes the one it is asked for, as the authors' code does.
    :class:`danseg.heads.PSANetHead` has a switch for weights that were trained with mmseg's head.

    Args:
        in_channels: channels C of the input and of the output.
        channels: channels of the attention; C / 4, at least 1, by default.
        mask_size: height and width of the mask. With a side of 2n - 1 a mask covers a grid of side n
            from every position: 97 is for 769x769 crops at output stride 8, shrunk by 2.
        psa_type: ``collect``, ``distribute`` or ``bi-direction``.
        compact: the mask's cells are the grid's positions j themselves, not positions j - i relative
            to the mask's owner i. The grid must then have the size ``mask_size``.
        shrink_factor: how many times smaller the attention's grid is.
        normalization_factor: divides the gathered features; None is the number of the mask's cells.
        psa_softmax: whether to apply a softmax to the energies.
        norm_layer: builds each convolution's normalisation for a given number of channels; None
            leaves it out.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for sizes below 1, an unknown type, or a map that a compact mask does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int | None = None,
        mask_size: tuple[int, int] = (97, 97),
        psa_type: str = "bi-direction",
        compact: bool = False,
        shrink_factor: int = 2,
        normalization_factor: float | None = 1.0,
        psa_softmax: bool = True,
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.build_context(
            in_channels,
            max(1, in_channels // 4) if channels is None else channels,
            mask_size,
            psa_type,
            compact,
            shrink_factor,
            normalization_factor,
            psa_softmax,
            norm_layer,
        )
        self.in_channels = in_channels
        self.gamma = ResidualScale()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        return self.gamma(x, self.context(x))

    def extra_repr(self) -> str:
        return f"psa_type={self.psa_type}, mask_size={self.mask_size}, shrink_factor={self.shrink_factor}"
