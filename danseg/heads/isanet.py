"""ISANet: interlaced sparse self-attention on a dilated backbone.

Huang et al., "Interlaced Sparse Self-Attention for Semantic Segmentation", arXiv 1907.12273.
"""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from danseg.attention.interlaced import InterlacedContext, RelationBlock, interlace
from danseg.heads.loss import UpsampledLoss
from danseg.norm_layer import norm_layer_of


@MODELS.register_module()
class ISANetHead(InterlacedContext, UpsampledLoss, BaseDecodeHead):
    """Decode head of ISANet.

    Parameter names are those of mmseg's ``ISAHead``: weights load in both directions under
    ``strict=True``, and outputs and losses are equal. The authors' head concatenates in the other order,
    features before context, and its values have no bias. It also takes several ``down_factors``, each with
    relations of its own, and then widens the features to as many channels as all contexts have; this head,
    like mmseg's, takes one.

    Args:
        isa_channels: channels of queries and keys.
        down_factor: height and width of the blocks for local attention.
        **kwargs: ``in_channels``, ``channels``, ``num_classes`` and all other arguments of mmseg's
            ``BaseDecodeHead``.

    Raises:
        ValueError: for channels or factors below 1.
    """

    def __init__(self, isa_channels: int, down_factor: tuple[int, int] = (8, 8), **kwargs) -> None:
        super().__init__(**kwargs)
        if min(isa_channels, *down_factor) < 1:
            raise ValueError(
                f"isa_channels and down_factor must be at least 1, got {isa_channels} and "
                f"{tuple(down_factor)}"
            )
        self.down_factor = (down_factor[0], down_factor[1])
        self.in_conv = self._conv(self.in_channels, 3)
        norm_layer = norm_layer_of(self.norm_cfg)
        self.global_relation = RelationBlock(self.channels, isa_channels, norm_layer)
        self.local_relation = RelationBlock(self.channels, isa_channels, norm_layer)
        self.out_conv = self._conv(2 * self.channels, 1)

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

    @property
    def attention_entry(self) -> nn.Module:
        """What gets the context and, behind it, the features that it is made of.

        These are asked for here, where a map needs no 3x3 convolution.
        """
        return self.out_conv

    def _attended(self, x: Tensor) -> Tensor:
        return x[:, self.channels :]

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """The features (B, channels, H, W) that ``conv_seg`` classifies."""
        x = self.in_conv(self._transform_inputs(inputs))
        context = interlace(x, self.down_factor, self.global_relation, self.local_relation)
        return self.out_conv(torch.cat([context, x], dim=1))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits (B, classes, H, W) from the backbone's feature maps."""
        return self.cls_seg(self._forward_feature(inputs))
