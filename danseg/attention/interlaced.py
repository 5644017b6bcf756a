"""Interlaced sparse self-attention (ISA): attention among far positions, then among near ones.

Huang et al., "Interlaced Sparse Self-Attention for Semantic Segmentation", arXiv 1907.12273.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.conv_norm import ConvNorm
from danseg.attention.parts.query_positions import flat_index, positions_first
from danseg.attention.parts.scale import ResidualScale
from danseg.attention.parts.views import ShowsAttention, View
from danseg.ops import attention
from danseg.ops.exported_attention import exported_window_attention
from danseg.ops.exporting import as_data, exporting
from danseg.ops.inputs import energy_dtype
from danseg.ops.products import energies

STAGES = ("far", "near")


class RelationBlock(nn.Module):
    """Self-attention among the positions of each (B, C, H, W) map, with mmseg's parameter names.

    Queries and keys go through two 1x1 convolutions, each with normalisation and ReLU; values go through
    one plain convolution. Energies are divided by the square root of ``channels``. The output is projected.
    """

    def __init__(
        self, in_channels: int, channels: int, norm_layer: Callable[[int], nn.Module] | None
    ) -> None:
        super().__init__()
        self.key_project = _two_layers(in_channels, channels, norm_layer)
        self.query_project = _two_layers(in_channels, channels, norm_layer)
        self.value_project = nn.Conv2d(in_channels, in_channels, 1)
        self.output_project = ConvNorm(in_channels, in_channels, norm_layer=norm_layer, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gather(x, *self.query_and_key(x))

    def query_and_key(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both as (B, positions, channels)."""
        return positions_first(self.query_project(x)), positions_first(self.key_project(x))

    def gather(self, x: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """The rest of ``forward``: (B, C, H, W) again."""
        value = positions_first(self.value_project(x))
        # Under autocast some norms give float32, while the values' plain convolution gives 16 bits.
        query, key = query.to(value.dtype), key.to(value.dtype)
        # A file's maps are those of all windows: a share of 1 / (positions of a block) of the map of all
        # pairs.
        gather = exported_window_attention if exporting() else attention
        out = gather(query, key, value, scale=query.shape[2] ** -0.5)
        return self.output_project(out.transpose(1, 2).unflatten(2, x.shape[2:]))


def _two_layers(in_channels: int, channels: int, norm_layer) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(in_channels, channels, norm_layer=norm_layer, relu=True),
        ConvNorm(channels, channels, norm_layer=norm_layer, relu=True),
    )


def interlace(
    x: Tensor, down_factor: tuple[int, int], global_relation: nn.Module, local_relation: nn.Module
) -> Tensor:
    """Apply a global relation to positions ``down_factor`` apart, then a local one to blocks of that size.

    Maps that the factors do not divide are padded with zeros on all sides, as in mmseg; the padded
    positions take part in the attention.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.
    """
    batch, channels, height, width = x.shape
    near_h, near_w = down_factor
    (far_h, far_w), (top, left) = _blocks((height, width), down_factor)
    x = global_relation(_by_place(x, down_factor))
    x = local_relation(_by_block(x, batch, down_factor))
    x = x.unflatten(0, (batch, far_h, far_w))  # (B, far_h, far_w, C, near_h, near_w)
    x = x.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, far_h * near_h, far_w * near_w)
    return x[:, :, top : top + height, left : left + width]


def _blocks(size: Sequence[int], down_factor: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """How many blocks cover a map of a size, and how many rows and columns of zeros come before it."""
    (height, width), (near_h, near_w) = size, down_factor
    far_h, far_w = (height + near_h - 1) // near_h, (width + near_w - 1) // near_w
    if exporting():
        far_h, far_w = as_data(far_h, far_w)
    return (far_h, far_w), ((far_h * near_h - height) // 2, (far_w * near_w - width) // 2)


def _by_place(x: Tensor, down_factor: tuple[int, int]) -> Tensor:
    """(B, C, H, W) as (B·near, C, far_h, far_w): one position of every block."""
    batch, channels, height, width = x.shape
    near_h, near_w = down_factor
    (far_h, far_w), (top, left) = _blocks((height, width), down_factor)
    bottom, right = far_h * near_h - height - top, far_w * near_w - width - left
    x = F.pad(x, (left, right, top, bottom))
    x = x.reshape(batch, channels, far_h, near_h, far_w, near_w)
    return x.permute(0, 3, 5, 1, 2, 4).flatten(0, 2)


def _by_block(x: Tensor, batch: int, down_factor: tuple[int, int]) -> Tensor:
    """(B·near, C, far_h, far_w) as (B·far, C, near_h, near_w): one block."""
    x = x.unflatten(0, (batch, *down_factor))  # (B, near_h, near_w, C, far_h, far_w)
    return x.permute(0, 4, 5, 3, 1, 2).flatten(0, 2)


class InterlacedContext(ShowsAttention):
    """What the module and the head show of their two relations.

    :meth:`InterlacedSparseAttention.attention_map` says what the view of both stages is.
    """

    down_factor: tuple[int, int]
    global_relation: RelationBlock
    local_relation: RelationBlock

    @property
    def attention_exit(self) -> nn.Module:
        """What the module scales and the head concatenates, in blocks."""
        return self.local_relation

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return torch.zeros_like(out)

    def attention_views(self) -> tuple[View, ...]:
        """Both stages together, then each one's own maps."""
        return (
            View("position", self._rows),
            *(View("position", partial(self._rows, stages=(stage,)), stage) for stage in STAGES),
        )

    def _attended(self, x: Tensor) -> Tensor:
        """The features that attend to each other, within the first input of :attr:`attention_entry`."""
        check_feature_map(self, x)
        return x

    def _rows(
        self, x: Tensor, stages: Sequence[str] = STAGES
    ) -> Callable[[Sequence[tuple[int, int]]], Tensor]:
        """Rows of the product of some stages' maps; a stage that is left out moves nothing."""
        x = self._attended(x)
        batch, (height, width), factor = len(x), x.shape[2:], self.down_factor
        blocks, (top, left) = _blocks((height, width), factor)
        far, near = blocks[0] * blocks[1], factor[0] * factor[1]
        by_place, device, wide = _by_place(x, factor), x.device, energy_dtype(x.dtype)
        far_pair = self.global_relation.query_and_key(by_place)  # (B·near, far, C')
        near_pair: tuple[Tensor, ...] = ()
        if "near" in stages:
            by_block = _by_block(self.global_relation.gather(by_place, *far_pair), batch, factor)
            near_pair = self.local_relation.query_and_key(by_block)  # (B·far, near, C')
        kept = {"far": far_pair if "far" in stages else (), "near": near_pair}

        def far_weights(block: Tensor) -> Tensor:
            """(B, P, near, far): what each position of P blocks gathers from others at its place."""
            if not kept["far"]:
                return F.one_hot(block, far)[None, :, None].to(wide)
            query, key = kept["far"]
            return _softmax(query[:, block], key).unflatten(0, (batch, near)).transpose(1, 2)

        def near_weights(block: Tensor, place: Tensor) -> Tensor:
            """(B, P, near): what P positions gather from those of their block."""
            if not kept["near"]:
                return F.one_hot(place, near)[None].to(wide)
            query, key = (t.unflatten(0, (batch, far)) for t in kept["near"])
            query, key = query[:, block, place].flatten(0, 1)[:, None], key[:, block].flatten(0, 1)
            return _softmax(query, key).view(batch, -1, near)

        def rows(positions: Sequence[tuple[int, int]]) -> Tensor:
            flat_index(positions, (height, width), device)  # raises if a position lies outside the map
            padded = [(row + top, column + left) for row, column in positions]
            block = [(row // factor[0], column // factor[1]) for row, column in padded]
            place = [(row % factor[0], column % factor[1]) for row, column in padded]
            in_blocks, in_places = flat_index(block, blocks, device), flat_index(place, factor, device)
            near_by = near_weights(in_blocks, in_places)
            whole = near_by[..., None] * far_weights(in_blocks)  # (B, P, near, far)
            whole = whole.unflatten(3, blocks).unflatten(2, factor)  # (B, P, near_h, near_w, far_h, far_w)
            whole = whole.permute(0, 1, 4, 2, 5, 3).flatten(4).flatten(2, 3)  # (B, P, H, W), padded
            whole = whole[..., top : top + height, left : left + width]
            return whole / whole.sum(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(whole.dtype).tiny)

        return rows


def _softmax(query: Tensor, key: Tensor) -> Tensor:
    return (energies(query, key) * query.shape[2] ** -0.5).softmax(dim=-1)


class InterlacedSparseAttention(InterlacedContext, nn.Module):
    """Global self-attention, then local self-attention, in place of attention among all pairs.

    For feature map ``x``, cut into blocks of ``down_factor`` positions::

        far = global_relation(x)                        # among positions at the same place in each block
        out = x + gamma.scale · local_relation(far)     # among the positions of one block

    Paper: Huang et al., "Interlaced Sparse Self-Attention for Semantic Segmentation", arXiv preprint
    2019, arXiv 1907.12273. Every position reaches every other in two steps. The paper concatenates
    ``x`` and the result, as :class:`danseg.heads.ISANetHead` does. This module keeps the shape: it
    adds them, with a factor that starts at 0. As in mmseg, whose parameter names these are, the values have
    a bias, which the authors' code leaves out.

    Args:
        in_channels: channels C of the input and of the output.
        isa_channels: channels of queries and keys; C / 2, at least 1, by default.
        down_factor: height and width of a block.
        norm_layer: builds each convolution's normalisation for a given number of channels; None
            leaves it out.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a count or factor below 1.
    """

    def __init__(
        self,
        in_channels: int,
        isa_channels: int | None = None,
        down_factor: tuple[int, int] = (8, 8),
        norm_layer: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        isa_channels = max(1, in_channels // 2) if isa_channels is None else isa_channels
        if min(in_channels, isa_channels, *down_factor) < 1:
            raise ValueError(
                f"in_channels, isa_channels and down_factor must be at least 1, got {in_channels}, "
                f"{isa_channels} and {tuple(down_factor)}"
            )
        self.in_channels = in_channels
        self.down_factor = (down_factor[0], down_factor[1])
        self.global_relation = RelationBlock(in_channels, isa_channels, norm_layer)
        self.local_relation = RelationBlock(in_channels, isa_channels, norm_layer)
        self.gamma = ResidualScale()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        check_feature_map(self, x)
        return self.gamma(x, interlace(x, self.down_factor, self.global_relation, self.local_relation))

    def attention_map(self, x: Tensor, positions: Sequence[tuple[int, int]]) -> Tensor:
        """What the given positions gather from in both steps together.

        The local relation gathers from the positions of a block, and each of these has gathered from the
        positions at its place in all blocks: this is the product of the two maps. (The normalisations and
        ReLUs in between are left out.) Where the map is padded, the padded positions get weight as well. They
        are no place in ``x``, so the others' weights are scaled to sum to 1.

        Args:
            x: ``(B, C, H, W)``, the module's input.
            positions: P pairs (row, column) in the feature map.

        Returns:
            ``(B, P, H, W)`` in at least float32; each H x W slice sums to 1. Only the P rows of the product
            are computed.

        Raises:
            ValueError: when a position lies outside the map, or none is given.
        """
        return self._rows(x)(positions)

    def extra_repr(self) -> str:
        return f"down_factor={self.down_factor}"
