"""Criss-cross attention: every position gathers from its row and its column; applied twice, from everywhere.

Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation", ICCV 2019, arXiv 1811.11721.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.query_positions import flat_index
from danseg.attention.parts.scale import ResidualScale
from danseg.attention.parts.views import ShowsAttention, View
from danseg.ops import criss_cross_attention
from danseg.ops.inputs import without_autocast


class CrissCrossAttention(ShowsAttention, nn.Module):
    """CCNet's recurrent criss-cross attention, with nothing to compile.

    Position u attends to the positions i of its row and its column, and counts itself once. The
    attention is applied ``recurrence`` times with the same weights. For feature map ``x``::

        q, k, v = query_conv(x), key_conv(x), value_conv(x)                # 1x1 convolutions
        out_u = gamma.scale · Σ_i softmax_i(q_u · k_i) v_i + x_u

    Paper: Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation", ICCV 2019,
    arXiv 1811.11721, equations 1 and 2. Parameter names are those of mmcv's module, which is one
    recurrence.

    Args:
        in_channels: channels of the input and of the output.
        recurrence: how often the attention is applied; after two times every position has seen
            all others.
        query_channels: channels of queries and keys; ``in_channels // 8``, at least 1, by default.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a count below 1.
    """

    def __init__(self, in_channels: int, recurrence: int = 2, query_channels: int | None = None) -> None:
        super().__init__()
        if query_channels is None:
            query_channels = max(1, in_channels // 8)
        if min(in_channels, recurrence, query_channels) < 1:
            raise ValueError(
                f"in_channels, recurrence and query_channels must be at least 1, got {in_channels}, "
                f"{recurrence} and {query_channels}"
            )
        self.in_channels = in_channels
        self.recurrence = recurrence
        self.query_conv = nn.Conv2d(in_channels, query_channels, 1)
        self.key_conv = nn.Conv2d(in_channels, query_channels, 1)
        self.value_conv = nn.Conv2d(in_channels, in_channels, 1)
        self.gamma = ResidualScale()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``, in the memory format of ``x``."""
        check_feature_map(self, x)
        out = _channels_last(x)
        for _ in range(self.recurrence):
            out = self._once(out)
        return out if x.stride(1) == 1 else out.contiguous()

    def _once(self, x: Tensor) -> Tensor:
        return self.gamma(x, criss_cross_attention(self.query_conv(x), self.key_conv(x), self.value_conv(x)))

    def attention_map(self, x: Tensor, positions: Sequence[tuple[int, int]]) -> Tensor:
        """What the given positions attend to, after all recurrences.

        In the last recurrence, a position gathers from its cross. Before that, each position of the
        cross gathered from its own cross. So the recurrences' maps are multiplied, each computed from
        the input of its recurrence, and the result is the given positions' rows of the product. (The
        residuals, which add the features themselves, are left out.)

        Args:
            x: ``(B, C, H, W)``, the module's input.
            positions: P pairs (row, column) in the feature map.

        Returns:
            ``(B, P, H, W)`` in at least float32; each H x W slice sums to 1. The last recurrence
            computes the P rows alone, each earlier one N (H + W) weights, never N x N.

        Raises:
            ValueError: when a position lies outside the map, or none is given.
        """
        return self._composed(x)(positions)

    def _composed(self, x: Tensor) -> Callable[[Sequence[tuple[int, int]]], Tensor]:
        """Rows of the product of all recurrences' maps."""
        check_feature_map(self, x)
        height, width = x.shape[2:]
        x, earlier = _channels_last(x), []
        for _ in range(self.recurrence - 1):
            earlier.append(self._weights(x).split((height, width), dim=-1))
            x = self._once(x)
        last = self._rows(x)

        def rows(positions: Sequence[tuple[int, int]]) -> Tensor:
            weights = last(positions)
            for column, row in reversed(earlier):
                with without_autocast(weights):
                    weights = torch.einsum("bphw,bhwg->bpgw", weights, column) + torch.einsum(
                        "bphw,bhwv->bphv", weights, row
                    )
            return weights

        return rows

    def _rows_of_one(self, x: Tensor, before: int) -> Callable[[Sequence[tuple[int, int]]], Tensor]:
        """Rows of one recurrence's own map, that of the recurrence which so many others come before."""
        check_feature_map(self, x)
        x = _channels_last(x)
        for _ in range(before):
            x = self._once(x)
        return self._rows(x)

    def _rows(self, x: Tensor) -> Callable[[Sequence[tuple[int, int]]], Tensor]:
        """Rows (B, P, H, W) of the map of the recurrence whose input is ``x``."""
        size = tuple(x.shape[2:])
        query, key = self._queries_and_keys(x)
        places = torch.arange(size[0] * size[1], device=x.device)

        def rows(positions: Sequence[tuple[int, int]]) -> Tensor:
            index = flat_index(positions, size, query.device)
            with without_autocast(query):
                energy = torch.einsum("bcp,bcn->bpn", query.flatten(2)[..., index], key.flatten(2))
            index = index[:, None]
            cross = (places // size[1] == index // size[1]) | (places % size[1] == index % size[1])  # (P, N)
            return energy.masked_fill(~cross, -torch.inf).softmax(dim=-1).unflatten(2, size)

        return rows

    def attention_views(self) -> tuple[View, ...]:
        views = (View("position", self._composed),)
        if self.recurrence == 1:
            return views
        return (
            *views,
            *(
                View("position", partial(self._rows_of_one, before=before), f"recurrence {before + 1}")
                for before in range(self.recurrence)
            ),
        )

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return x

    def _weights(self, x: Tensor) -> Tensor:
        """All of one recurrence's weights (B, H, W, H + W): each position's column, then its row."""
        query, key = self._queries_and_keys(x)
        with without_autocast(x):
            column = torch.einsum("bchw,bcgw->bhwg", query, key)
            row = torch.einsum("bchw,bchv->bhwv", query, key)
        # The row part contains the position itself already.
        itself = torch.eye(x.shape[2], dtype=torch.bool, device=x.device)[:, None]  # (H, 1, H)
        return torch.cat([column.masked_fill(itself, -torch.inf), row], dim=-1).softmax(dim=-1)

    def _queries_and_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key = self.query_conv(x), self.key_conv(x)
        wide = torch.promote_types(query.dtype, torch.float32)
        return query.to(wide), key.to(wide)

    def extra_repr(self) -> str:
        return f"recurrence={self.recurrence}"


def _channels_last(x: Tensor) -> Tensor:
    """``x`` in another layout, once for all recurrences.

    The attention needs channels last, and on CPUs 1x1 convolutions are up to three times as fast with it.
    (``vmap`` knows no memory formats.)
    """
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
