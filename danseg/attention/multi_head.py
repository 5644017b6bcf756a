"""Multi-head self-attention of the Transformer on feature maps.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.query_positions import flat_index
from danseg.attention.parts.views import ShowsAttention, View
from danseg.ops import attention
from danseg.ops.products import energies


class MultiHeadSelfAttention(ShowsAttention, nn.Module):
    """Scaled dot-product self-attention of several heads, in linear memory, added to its input.

    For feature map ``x`` with positions i, j, and heads h of d = C / heads channels::

        q, k, v = query_project(x), key_project(x), value_project(x)       # 1x1 convolutions
        head_h,i = Σ_j softmax_j(q_h,i · k_h,j / √d) v_h,j
        out_i = x_i + out_project([head_1,i, ..., head_h,i])

    Paper: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762, section
    3.2. The residual is inside, as in every module here; layer normalisation, the feed-forward
    layer and position encodings are not.

    Args:
        in_channels: channels C of the input and of the output.
        heads: number of heads, which has to divide C.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a count below 1, or channels that the heads do not divide.
    """

    def __init__(self, in_channels: int, heads: int = 8) -> None:
        super().__init__()
        if in_channels < 1 or heads < 1:
            raise ValueError(f"in_channels and heads must be at least 1, got {in_channels} and {heads}")
        if in_channels % heads:
            raise ValueError(
                f"in_channels must be divisible by heads = {heads}, got {in_channels}; choose another number "
                "of heads"
            )
        self.in_channels = in_channels
        self.heads = heads
        self.query_project = nn.Conv2d(in_channels, in_channels, 1)
        self.key_project = nn.Conv2d(in_channels, in_channels, 1)
        self.value_project = nn.Conv2d(in_channels, in_channels, 1)
        self.out_project = nn.Conv2d(in_channels, in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        check_feature_map(self, x)
        query, key, value = (
            self._split(project(x)) for project in (self.query_project, self.key_project, self.value_project)
        )
        out = attention(query, key, value, scale=query.shape[2] ** -0.5)  # (B·heads, N, d)
        out = out.transpose(1, 2).reshape(x.shape)  # heads side by side in the channels again
        return x + self.out_project(out).to(x.dtype)

    def _split(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B·heads, N, d)."""
        return x.reshape(-1, self.in_channels // self.heads, math.prod(x.shape[2:])).transpose(1, 2)

    def attention_map(self, x: Tensor, positions: Sequence[tuple[int, int]]) -> Tensor:
        """What the given positions attend to, averaged over the heads.

        Args:
            x: ``(B, C, H, W)``, the module's input.
            positions: P pairs (row, column) in the feature map.

        Returns:
            ``(B, P, H, W)`` in at least float32; each H x W slice sums to 1. Only the P rows of
            each head's map are computed.

        Raises:
            ValueError: when a position lies outside the map, or none is given.
        """
        return self._rows(x)(positions)

    def _rows(self, x: Tensor, head: int | None = None) -> Callable[[Sequence[tuple[int, int]]], Tensor]:
        """Rows of one head's map, or of the mean of all."""
        check_feature_map(self, x)
        size = tuple(x.shape[2:])
        heads = slice(None) if head is None else slice(head, head + 1)
        query, key = (
            # (B, heads, N, d). A copy of one head's, or all would be kept for it.
            self._split(project(x)).unflatten(0, (-1, self.heads))[:, heads].clone()
            for project in (self.query_project, self.key_project)
        )

        def rows(positions: Sequence[tuple[int, int]]) -> Tensor:
            index = flat_index(positions, size, x.device)
            energy = energies(query[:, :, index].flatten(0, 1), key.flatten(0, 1)) * query.shape[3] ** -0.5
            weight = energy.softmax(dim=-1).unflatten(0, query.shape[:2]).mean(dim=1)  # (B, P, N)
            return weight.unflatten(2, size)

        return rows

    def attention_views(self) -> tuple[View, ...]:
        views = (View("position", self._rows),)
        if self.heads == 1:
            return views
        return (
            *views,
            *(View("position", partial(self._rows, head=h), f"head {h + 1}") for h in range(self.heads)),
        )

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return x

    def extra_repr(self) -> str:
        return f"heads={self.heads}"
