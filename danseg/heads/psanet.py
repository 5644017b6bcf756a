"""PSANet: point-wise spatial attention, concatenated with the features that it is computed from.

Zhao et al., "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018.
"""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor

from danseg.attention.pointwise_spatial import PointwiseSpatialContext
from danseg.heads.loss import UpsampledLoss
from danseg.norm_layer import norm_layer_of


@MODELS.register_module()
class PSANetHead(PointwiseSpatialContext, UpsampledLoss, BaseDecodeHead):
    """Decode head of PSANet, with nothing to compile.

    Parameter names are those of mmseg's ``PSAHead``: weights load in both directions under
    ``strict=True``, and outputs and losses are equal. There is one exception, ``compact`` with one
    direction, where mmseg's head computes the other direction. :mod:`danseg.drop_in` registers this head
    as ``PSAHead`` with ``swap_compact=True``, and so without the exception.

    Args:
        mask_size: height and width of the mask. :class:`danseg.attention.PointwiseSpatialAttention`
            explains this argument and the next five.
        psa_type: ``collect``, ``distribute`` or ``bi-direction``.
        compact: the mask's cells are the grid's positions themselves.
        shrink_factor: how many times smaller the attention's grid is.
        normalization_factor: divides the gathered features; None is the number of the mask's cells.
        psa_softmax: whether to apply a softmax to the energies.
        proj_padding: zero padding of the projection, a 1x1 convolution. mmseg's head has 1, and its
            weights need it; the authors' code has 0.
        swap_compact: whether ``collect`` stands for ``distribute``, and the reverse, where ``compact`` goes
            with one direction. Weights that mmseg's head was trained with need it; the authors' code does
            not do it.
        **kwargs: ``in_channels``, ``channels``, ``num_classes`` and all other arguments of mmseg's
            ``BaseDecodeHead``.
    """

    def __init__(
        self,
        mask_size: tuple[int, int],
        psa_type: str = "bi-direction",
        compact: bool = False,
        shrink_factor: int = 2,
        normalization_factor: float | None = 1.0,
        psa_softmax: bool = True,
        proj_padding: int = 1,
        swap_compact: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.build_context(
            self.in_channels,
            self.channels,
            mask_size,
            psa_type,
            compact,
            shrink_factor,
            normalization_factor,
            psa_softmax,
            norm_layer_of(self.norm_cfg),
            proj_padding=proj_padding,
            swap_compact=swap_compact,
        )
        self.bottleneck = ConvModule(
            2 * self.in_channels,
            self.channels,
            3,
            padding=1,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """The features (B, channels, H, W) that ``conv_seg`` classifies."""
        x = self._transform_inputs(inputs)
        return self.bottleneck(torch.cat([x, self.context(x)], dim=1))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits (B, classes, H, W) from the backbone's feature maps."""
        return self.cls_seg(self._forward_feature(inputs))
