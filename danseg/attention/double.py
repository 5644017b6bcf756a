"""Double attention (A² block): gather features into a few descriptors, distribute them to all positions.

Chen et al., "A²-Nets: Double Attention Networks", NeurIPS 2018, arXiv 1810.11579.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.query_positions import flat_index
from danseg.attention.parts.views import ShowsAttention, View, at_once
from danseg.ops.inputs import without_autocast


class DoubleAttention(ShowsAttention, nn.Module):
    """Second-order gathering and distribution of features, linear in the number of positions.

    For feature map ``x`` with positions i, j, and n descriptors d::

        a, b, v = feature_project(x), gather_project(x), distribute_project(x)   # 1x1 convolutions
        g_d = Σ_j softmax_j(b_jd) a_j                                      # gathered from everywhere
        out_i = x_i + out_project(Σ_d softmax_d(v_id) g_d)

    Paper: Chen et al., "A²-Nets: Double Attention Networks", NeurIPS 2018, arXiv 1810.11579,
    equations 3 to 6. The gathering softmax runs over the positions of one image, as in the paper; a
    widespread reimplementation runs it over the batch.

    Args:
        in_channels: channels C of the input and of the output.
        feature_channels: channels of the gathered features; C / 4, at least 1, by default.
        attention_channels: number n of descriptors; C / 4, at least 1, by default.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a channel count below 1.
    """

    def __init__(
        self, in_channels: int, feature_channels: int | None = None, attention_channels: int | None = None
    ) -> None:
        super().__init__()
        quarter = max(1, in_channels // 4)
        feature_channels = quarter if feature_channels is None else feature_channels
        attention_channels = quarter if attention_channels is None else attention_channels
        if min(in_channels, feature_channels, attention_channels) < 1:
            raise ValueError(
                "in_channels, feature_channels and attention_channels must be at least 1, got "
                f"{in_channels}, {feature_channels} and {attention_channels}"
            )
        self.in_channels = in_channels
        self.feature_project = nn.Conv2d(in_channels, feature_channels, 1)
        self.gather_project = nn.Conv2d(in_channels, attention_channels, 1)
        self.distribute_project = nn.Conv2d(in_channels, attention_channels, 1)
        self.out_project = nn.Conv2d(feature_channels, in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        check_feature_map(self, x)
        features, scores = self.feature_project(x).flatten(2), self.distribute_project(x).flatten(2)
        gather = self.attention_map(x).flatten(2)  # (B, n, N)
        with without_autocast(x):
            descriptors = features.to(gather.dtype) @ gather.transpose(1, 2)  # (B, m, n), summed in float32
            out = descriptors.to(features.dtype) @ scores.to(gather.dtype).softmax(dim=1).to(features.dtype)
        return x + self.out_project(out.unflatten(2, x.shape[2:])).to(x.dtype)

    def attention_map(self, x: Tensor) -> Tensor:
        """The positions that each descriptor gathers from: (B, n, H, W) in at least float32.

        Each H x W slice sums to 1. A map belongs to a descriptor, not to a query position.
        """
        check_feature_map(self, x)
        scores = self.gather_project(x)
        wide = torch.promote_types(scores.dtype, torch.float32)
        return scores.to(wide).flatten(2).softmax(dim=-1).unflatten(2, x.shape[2:])

    def attention_views(self) -> tuple[View, ...]:
        """What a position gets from where, by way of all descriptors; then the two steps.

        "gather" is :meth:`attention_map`. "distribute" has a map for each descriptor too, of the share that
        it has in what each position gets: at each position, these sum to 1 over the descriptors.
        """
        parts = tuple(f"descriptor {number}" for number in range(1, self.gather_project.out_channels + 1))
        return (
            View("position", self._rows),
            View("everywhere", at_once(self.attention_map), "gather", parts=parts),
            View("everywhere", at_once(self._distributed), "distribute", "gate", parts),
        )

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return x

    def _rows(self, x: Tensor) -> Callable[[Sequence[tuple[int, int]]], Tensor]:
        """Rows of the product of the steps: ``Σ_d softmax_d(v_id) softmax_j(b_jd)``."""
        gather, distribute = self.attention_map(x).flatten(2), self._distributed(x).flatten(2)  # (B, n, N)
        size = tuple(x.shape[2:])

        def rows(positions: Sequence[tuple[int, int]]) -> Tensor:
            index = flat_index(positions, size, x.device)
            with without_autocast(x):
                return (distribute[:, :, index].transpose(1, 2) @ gather).unflatten(2, size)

        return rows

    def _distributed(self, x: Tensor) -> Tensor:
        """The share of each descriptor in what each position gets (B, n, H, W)."""
        check_feature_map(self, x)
        scores = self.distribute_project(x)
        return scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(dim=1)
