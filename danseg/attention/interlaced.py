"""Interlaced sparse self-attention (ISA): attention among far positions, then among near ones.

Huang et al., "Interlaced Sparse Self-Attention for Semantic Segmentation", arXiv 1907.12273.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.conv_norm import ConvNorm
from danseg.attention.parts.query_positions import positions_first
from danseg.attention.parts.scale import ResidualScale
from danseg.ops import attention
from danseg.ops.exported_attention import exported_window_attention
from danseg.ops.exporting import as_data, exporting


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
        query, key, value = (
            positions_first(project(x))
            for project in (self.query_project, self.key_project, self.value_project)
        )
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
    far_h, far_w = (height + near_h - 1) // near_h, (width + near_w - 1) // near_w
    if exporting():
        far_h, far_w = as_data(far_h, far_w)
    extra_h, extra_w = far_h * near_h - height, far_w * near_w - width
    top, left = extra_h // 2, extra_w // 2
    x = F.pad(x, (left, extra_w - left, top, extra_h - top))
    x = x.reshape(batch, channels, far_h, near_h, far_w, near_w)
    x = x.permute(0, 3, 5, 1, 2, 4).flatten(0, 2)  # (B·near, C, far_h, far_w): one position of every block
    x = global_relation(x)
    x = x.unflatten(0, (batch, near_h, near_w))  # (B, near_h, near_w, C, far_h, far_w)
    x = x.permute(0, 4, 5, 3, 1, 2).flatten(0, 2)  # (B·far, C, near_h, near_w): one block
    x = local_relation(x)
    x = x.unflatten(0, (batch, far_h, far_w))  # (B, far_h, far_w, C, near_h, near_w)
    x = x.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, far_h * near_h, far_w * near_w)
    return x[:, :, top : top + height, left : left + width]


class InterlacedSparseAttention(nn.Module):
    """Global self-attention, then local self-attention, in place of attention among all pairs.

    For feature map ``x``, cut into blocks of ``down_factor`` positions::

        far = global_relation(x)                        # among positions at the same place in each block
        out = x + gamma.scale · local_relation(far)     # among the positions of one block

    Paper: Huang et al., "Interlaced Sparse Self-Attention for Semantic Segmentation", arXiv preprint
    2019, arXiv 1907.12273. Every position reaches every other in two steps. The paper concatenates
    ``x`` and the result, as :class:`danseg.heads.ISANetHead` does. This module keeps the shape: it
    adds them, with a factor that starts at 0. As in mmseg, whose parameter names these are, the values have
    a bias, which the authors' code leaves out. There is no ``attention_map``: normalisation and ReLU
    lie between the two steps, so no single map says what a position has seen.

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

    def extra_repr(self) -> str:
        return f"down_factor={self.down_factor}"
