"""Point-wise spatial attention (PSANet): positions collect from, and distribute to, all others.

Zhao et al., "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.conv_norm import ConvNorm
from danseg.attention.parts.query_positions import flat_index, positions_first
from danseg.attention.parts.scale import ResidualScale
from danseg.ops import attention as softmax_attention
from danseg.ops.exported_resize import exported_grid, exported_resize
from danseg.ops.exporting import exporting
from danseg.ops.pointwise_spatial_attention import KINDS, pointwise_spatial_attention, row_energies
from danseg.ops.products import dot_product, energies

TYPES = (*KINDS, "bi-direction")


class PointwiseSpatialContext:
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

    def context(self, x: Tensor) -> Tensor:
        """The features that all positions gather, projected and resized to the size of ``x`` (B, C, H, W)."""
        check_feature_map(self, x)
        gathered = [self._gather(*branch) for branch in self._branches(x)]
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

    def _branches(self, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor, str]]:
        """For each branch: its shrunk features, and the hidden features, weight and kind of its mask."""
        size, align_corners = self._shrunk(x.shape[2:])
        kinds = KINDS if self.psa_type == "bi-direction" else (self.psa_type,)
        branches = []
        for suffix, kind in zip(("", "_p"), kinds, strict=False):
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

        Args:
            x: ``(B, C, H, W)``, the module's input.
            positions: P pairs (row, column) in the feature map.

        Returns:
            ``(B, P, h, w)`` on the attention's grid, which is ``shrink_factor`` times smaller than
            the map, in at least float32. With ``psa_softmax`` each slice sums to 1.

        Raises:
            ValueError: when a position lies outside the map, or none is given.
        """
        check_feature_map(self, x)
        flat_index(positions, x.shape[2:], x.device)  # raises if a position lies outside the map
        (height, width), _ = self._shrunk(x.shape[2:])
        cells = [(row * height // x.shape[2], column * width // x.shape[3]) for row, column in positions]
        maps = []
        for _, hidden, weight, kind in self._branches(x):
            if self.compact:
                query, key = self._compact_pair(hidden, weight, kind)
                energy = energies(query[:, flat_index(cells, (height, width), x.device)], key)  # (B, P, N)
            else:
                energy = torch.stack(
                    [row_energies(hidden, weight, self.mask_size, kind, r)[:, c] for r, c in cells], dim=1
                )
            maps.append(energy.softmax(dim=-1) if self.psa_softmax else energy)
        return torch.stack(maps).mean(dim=0).unflatten(2, (height, width))


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
