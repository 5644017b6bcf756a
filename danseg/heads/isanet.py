"""ISANet: attention among distant positions, then among near ones.

Huang et al., "Interlaced Sparse Self-Attention for Semantic Segmentation", 2019, arXiv 1907.12273.
"""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor

from danseg.attention.interlaced import Relation, checked_down_factor, interlaced
from danseg.heads.base import norm_layer_of


@MODELS.register_module()
class ISANetHead(BaseDecodeHead):
    """Decode head of ISANet.

    For feature map ``x``::

        y = in_conv(x)                                                     # 3x3
        logits = conv_seg(dropout(out_conv([local_relation(global_relation(y)), y])))

    Behind ``in_conv`` that is :class:`danseg.attention.InterlacedSparseAttention`, whose layers lie
    directly in this head, as in mmseg's ``ISAHead``: weights go both ways under ``strict=True``, and
    outputs and losses are equal.

    Args:
        isa_channels: channels of queries and keys.
        down_factor: height and width of a block.
        **kwargs: ``in_channels``, ``channels``, ``num_classes`` and all others of mmseg's
            ``BaseDecodeHead``. The relations have plain convolutions and ReLU, whatever ``conv_cfg``
            and ``act_cfg`` are.

    Raises:
        ValueError: when ``down_factor`` is not two sides of at least 1.
    """

    def __init__(self, isa_channels: int, down_factor: tuple[int, int] = (8, 8), **kwargs) -> None:
        super().__init__(**kwargs)
        self.down_factor = checked_down_factor(down_factor)
        norm_layer = norm_layer_of(self.norm_cfg)
        self.in_conv = self._conv(self.in_channels, kernel_size=3)
        self.global_relation = Relation(self.channels, isa_channels, norm_layer)
        self.local_relation = Relation(self.channels, isa_channels, norm_layer)
        self.out_conv = self._conv(2 * self.channels, kernel_size=1)

    def _conv(self, in_channels: int, kernel_size: int) -> ConvModule:
        return ConvModule(
            in_channels,
            self.channels,
            kernel_size,
            padding=kernel_size // 2,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """The features (B, channels, H, W) that ``conv_seg`` classifies."""
        x = self.in_conv(self._transform_inputs(inputs))
        context = interlaced(x, self.down_factor, self.global_relation, self.local_relation)
        return self.out_conv(torch.cat([context, x], dim=1))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits (B, classes, H, W) from the backbone's feature maps."""
        return self.cls_seg(self._forward_feature(inputs))
