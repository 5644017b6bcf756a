"""Interlaced sparse attention (ISA): attention among distant positions, then among near ones.

Huang et al., "Interlaced Sparse Self-Attention for Semantic Segmentation", 2019, arXiv 1907.12273.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from danseg.attention.conv_norm import ConvNorm
from danseg.attention.positions import flat_index, positions_first
from danseg.ops import attention


class InterlacedSparseAttention(nn.Module):
    """Self-attention in two sparse steps that together join every position with every other.

    The map is cut into blocks of ``down_factor`` positions. The global relation is attention among
    the positions that have the same place in their blocks, the local relation attention among the
    positions of one block::

        q, k, v = query_project(y), key_project(y), value_project(y)       # in relation(y)
        relation(y)_i = output_project(Σ_{j in group of i} softmax_j(q_i · k_j / √C') v_j)
        out = out_conv([local_relation(global_relation(x)), x])

    With blocks of P positions a map of N positions has N²/P + N·P energies instead of N².

    Paper: Huang et al., "Interlaced Sparse Self-Attention for Semantic Segmentation", 2019,
    arXiv 1907.12273. The projections are those of the authors' code and of mmseg: queries and keys
    pass two convolutions with normalisation and ReLU, ``output_project`` and ``out_conv`` one. The
    input takes part by concatenation, not by addition. Where the sides are no multiples of
    ``down_factor``, zeros are padded on all sides, and attended to like any position, as in mmseg,
    whose published weights were trained so.

    Args:
        in_channels: channels C of the input and of the output.
        isa_channels: channels C' of queries and keys; ``in_channels // 2``, at least 1, by default.
        down_factor: height and width of a block.
        norm_layer: makes the normalisation for a number of channels; None for none.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a channel count or a side of the block below 1.
    """

    def __init__(
        self,
        in_channels: int,
        isa_channels: int | None = None,
        down_factor: tuple[int, int] = (8, 8),
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if isa_channels is None:
            isa_channels = max(1, in_channels // 2)
        if in_channels < 1 or isa_channels < 1:
            raise ValueError(
                f"in_channels and isa_channels must be at least 1, got {in_channels} and {isa_channels}"
            )
        self.down_factor = checked_down_factor(down_factor)
        self.global_relation = Relation(in_channels, isa_channels, norm_layer)
        self.local_relation = Relation(in_channels, isa_channels, norm_layer)
        self.out_conv = ConvNorm(2 * in_channels, in_channels, norm_layer=norm_layer, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        context = interlaced(x, self.down_factor, self.global_relation, self.local_relation)
        return self.out_conv(torch.cat([context.to(x.dtype), x], dim=1)).to(x.dtype)

    def attention_map(self, x: Tensor, positions: Sequence[tuple[int, int]]) -> Tensor:
        """What the given positions attend to through both steps.

        A position reaches any other by exactly one way: the local relation leads to the one position
        of its own block that has the other's place, the global relation from there to the other's
        block. The map is the product of the two weights; what ``output_project`` does in between
        is left out.

        Args:
            x: ``(B, C, H, W)``, the module's input.
            positions: P pairs (row, column) in the feature map.

        Returns:
            ``(B, P, H, W)`` in at least float32. Each H x W slice sums to 1 where H and W are
            multiples of ``down_factor``, else to 1 less the weight of the padding. The global
            relation is computed as a whole, of both maps only the rows that are needed.

        Raises:
            ValueError: when a position lies outside the map, or none is given.
        """
        (height, width), (block_height, block_width) = x.shape[2:], self.down_factor
        flat_index(positions, (height, width), x.device)  # the check
        grid = _blocks(x, self.down_factor)  # (B, C, Gh, Lh, Gw, Lw)
        top, left = _padding_before(x, self.down_factor)
        far = _by_place(grid)  # (B·Lh·Lw, C, Gh, Gw)
        near = self.global_relation(far).unflatten(0, (-1, block_height, block_width))
        maps = []
        for row, column in positions:
            block_row, place_row = divmod(row + top, block_height)
            block_column, place_column = divmod(column + left, block_width)
            block = near[..., block_row, block_column].movedim(3, 1)  # (B, C, Lh, Lw)
            local = self.local_relation.weights(block, place_row * block_width + place_column)
            distant = self.global_relation.weights(far, block_row * far.shape[3] + block_column)
            weight = local[:, :, None] * distant.unflatten(0, (len(x), -1))  # (B, Lh·Lw, Gh·Gw)
            weight = weight.unflatten(2, far.shape[2:]).unflatten(1, self.down_factor)
            weight = weight.permute(0, 3, 1, 4, 2).flatten(3).flatten(1, 2)  # (B, Gh·Lh, Gw·Lw)
            maps.append(weight[:, top : top + height, left : left + width])
        return torch.stack(maps, dim=1)

    def extra_repr(self) -> str:
        return f"down_factor={self.down_factor}"


class Relation(nn.Module):
    """Attention among the positions of each map of a batch, between projections.

    Args:
        in_channels: channels C of the input, of the values and of the output.
        channels: channels of queries and keys.
        norm_layer: makes the normalisation for a number of channels; None for none.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.
    """

    def __init__(
        self, in_channels: int, channels: int, norm_layer: Callable[[int], nn.Module] | None
    ) -> None:
        super().__init__()

        def project(*sizes: int) -> list[ConvNorm]:
            return [ConvNorm(*pair, norm_layer=norm_layer, relu=True) for pair in zip(sizes, sizes[1:])]

        # mmseg's order, so that optimizer states, which know parameters by number, fit as well.
        self.key_project = nn.Sequential(*project(in_channels, channels, channels))
        self.query_project = nn.Sequential(*project(in_channels, channels, channels))
        self.value_project = nn.Conv2d(in_channels, in_channels, 1)
        self.output_project = project(in_channels, in_channels)[0]
        self.scale = channels**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        query, key = self.query_project(x), self.key_project(x)
        value = self.value_project(x).to(query.dtype)  # autocast leaves some normalisations in float32
        context = attention(*map(positions_first, (query, key, value)), scale=self.scale)  # (B, N, C)
        return self.output_project(context.transpose(1, 2).unflatten(2, x.shape[2:]))

    def weights(self, x: Tensor, index: int) -> Tensor:
        """Row ``index`` of each map, (B, N), in at least float32."""
        query = self.query_project(x).flatten(2)[:, :, index, None]  # (B, C', 1)
        key = self.key_project(x).flatten(2)  # (B, C', N)
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(query.dtype, torch.float32)
            energy = self.scale * (query.to(wide) * key.to(wide)).sum(dim=1)
        return energy.softmax(dim=-1)


def checked_down_factor(down_factor: tuple[int, int]) -> tuple[int, int]:
    """``down_factor`` as a tuple.

    Raises:
        ValueError: when it is not two sides of at least 1.
    """
    if not isinstance(down_factor, Sequence) or len(down_factor) != 2 or min(down_factor) < 1:
        raise ValueError(
            f"down_factor must be height and width of a block, at least 1 each, such as (8, 8); "
            f"got {down_factor}"
        )
    return tuple(down_factor)


def interlaced(
    x: Tensor, down_factor: tuple[int, int], global_relation: nn.Module, local_relation: nn.Module
) -> Tensor:
    """``x`` (B, C, H, W) after the global and the local relation, in the same shape.

    Args:
        x: ``(B, C, H, W)``.
        down_factor: height and width (Lh, Lw) of a block; zeros are padded where it does not fit.
        global_relation: applied to ``(B·Lh·Lw, C, Gh, Gw)``, one map a place in the blocks.
        local_relation: applied to ``(B·Gh·Gw, C, Lh, Lw)``, one map a block.
    """
    (height, width), sides = x.shape[2:], down_factor
    grid = _blocks(x, sides)  # (B, C, Gh, Lh, Gw, Lw)
    count = grid.shape[2], grid.shape[4]
    y = global_relation(_by_place(grid))  # (B·Lh·Lw, C, Gh, Gw)
    y = y.unflatten(0, (-1, *sides)).permute(0, 4, 5, 3, 1, 2).flatten(0, 2)
    y = local_relation(y)  # (B·Gh·Gw, C, Lh, Lw)
    y = y.unflatten(0, (-1, *count)).permute(0, 3, 1, 4, 2, 5)  # (B, C, Gh, Lh, Gw, Lw)
    y = y.flatten(4).flatten(2, 3)  # (B, C, Gh·Lh, Gw·Lw)
    top, left = _padding_before(x, sides)
    return y[:, :, top : top + height, left : left + width]


def _padding_before(x: Tensor, sides: tuple[int, int]) -> tuple[int, int]:
    """Rows above and columns left of ``x`` in the padded map: half of them, rounded down."""
    return tuple(-size % side // 2 for size, side in zip(x.shape[2:], sides, strict=True))


def _blocks(x: Tensor, sides: tuple[int, int]) -> Tensor:
    """(B, C, H, W), zero-padded to blocks of Lh x Lw, as (B, C, Gh, Lh, Gw, Lw)."""
    top, left = _padding_before(x, sides)
    bottom, right = -x.shape[2] % sides[0] - top, -x.shape[3] % sides[1] - left
    x = F.pad(x, (left, right, top, bottom))
    return x.unflatten(3, (-1, sides[1])).unflatten(2, (-1, sides[0]))


def _by_place(grid: Tensor) -> Tensor:
    """(B, C, Gh, Lh, Gw, Lw) as (B·Lh·Lw, C, Gh, Gw)."""
    return grid.permute(0, 3, 5, 1, 2, 4).flatten(0, 2)
