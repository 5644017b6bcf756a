"""Position attention (PAM): every position gathers from all positions by feature similarity.

Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv 1809.02983.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.query_positions import flat_index, positions_first
from danseg.attention.parts.scale import ResidualScale
from danseg.attention.parts.views import ShowsAttention, View
from danseg.ops import attention
from danseg.ops.products import energies


class PositionAttention(ShowsAttention, nn.Module):
    """DANet's position attention module in linear memory.

    For feature map ``x`` with positions i, j::

        q, k, v = query_project(x), key_project(x), value_project(x)       # 1x1 convolutions
        out_j = gamma.scale · Σ_i softmax_i(q_j · k_i) v_i + x_j

    Paper: Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019,
    arXiv 1809.02983, equations 1 and 2. As in the authors' code and in mmseg, energies
    are not divided by √d. The N x N map is never in memory as a whole; see
    :func:`danseg.ops.attention`.

    Args:
        in_channels: channels of the input and of the output.
        query_channels: channels of queries and keys; ``in_channels // 8``, at least 1, by default.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a channel count below 1.
    """

    def __init__(self, in_channels: int, query_channels: int | None = None) -> None:
        super().__init__()
        if query_channels is None:
            query_channels = max(1, in_channels // 8)
        if in_channels < 1 or query_channels < 1:
            raise ValueError(
                f"in_channels and query_channels must be at least 1, got {in_channels} and {query_channels}"
            )
        self.in_channels = in_channels
        # mmseg's order, so that optimizer states load as well: they refer to parameters by number.
        self.key_project = nn.Conv2d(in_channels, query_channels, 1)
        self.query_project = nn.Conv2d(in_channels, query_channels, 1)
        self.value_project = nn.Conv2d(in_channels, in_channels, 1)
        self.gamma = ResidualScale()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        check_feature_map(self, x)
        return self.gamma(x, self._gather(x))

    def _gather(self, x: Tensor) -> Tensor:
        # A method of its own, so that queries, keys and values are freed before the sum.
        out = attention(
            positions_first(self.query_project(x)),
            positions_first(self.key_project(x)),
            positions_first(self.value_project(x)),
        )  # (B, N, C)
        return out.transpose(1, 2).unflatten(2, x.shape[2:])  # (B, C, H, W)

    def attention_map(self, x: Tensor, positions: Sequence[tuple[int, int]]) -> Tensor:
        """What the given positions attend to.

        Args:
            x: ``(B, C, H, W)``, the module's input.
            positions: P pairs (row, column) in the feature map.

        Returns:
            ``(B, P, H, W)``: the P rows of the map, in the dtype of the energies (at least
            float32). Each H x W slice sums to 1. Only these rows are computed.

        Raises:
            ValueError: when a position lies outside the map, or none is given.
        """
        return self._rows(x)(positions)

    def _rows(self, x: Tensor) -> Callable[[Sequence[tuple[int, int]]], Tensor]:
        check_feature_map(self, x)
        query = positions_first(self.query_project(x))  # (B, N, C')
        key = positions_first(self.key_project(x))

        def rows(positions: Sequence[tuple[int, int]]) -> Tensor:
            index = flat_index(positions, x.shape[2:], x.device)
            return energies(query[:, index], key).softmax(dim=-1).unflatten(2, x.shape[2:])

        return rows

    def attention_views(self) -> tuple[View, ...]:
        return (View("position", self._rows),)

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return x
