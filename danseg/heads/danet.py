"""DANet: position and channel attention in two branches on a dilated backbone.

Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv 1809.02983.
"""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.utils import add_prefix
from torch import Tensor, nn

from danseg.attention import ChannelAttention, PositionAttention
from danseg.heads.loss import UpsampledLoss


@MODELS.register_module()
class DANetHead(UpsampledLoss, BaseDecodeHead):
    """DANet's decode head with attention in linear memory.

    Each branch is 3x3 conv → attention → 3x3 conv, and the sum of the branches is classified.
    In training each branch also has a classifier of its own, and the three losses have equal
    weight; at test time only the fused classifier is computed.

    Parameter names are those of mmseg's ``DAHead``: weights load in both directions under
    ``strict=True``, and outputs and losses (``pam_cam.*``, ``pam.*``, ``cam.*``) are equal.

    Args:
        pam_channels: channels of PAM's queries and keys; 64 for 512 ``channels`` in the paper.
        with_pam: keep the position branch.
        with_cam: keep the channel branch. With a single branch, which is the paper's ablation,
            its features go straight to the classifier ``conv_seg``, and the losses have no
            prefix.
        **kwargs: ``in_channels``, ``channels``, ``num_classes`` and all other arguments of
            mmseg's ``BaseDecodeHead``.

    Raises:
        ValueError: when both branches are switched off.
    """

    def __init__(self, pam_channels: int, with_pam: bool = True, with_cam: bool = True, **kwargs) -> None:
        super().__init__(**kwargs)
        if not (with_pam or with_cam):
            raise ValueError("DANetHead needs a branch: set with_pam=True or with_cam=True, or use FCNHead")
        self.pam_channels = pam_channels
        self.with_pam = with_pam
        self.with_cam = with_cam
        if with_pam:
            self.pam_in_conv = self._conv(self.in_channels)
            self.pam = PositionAttention(self.channels, pam_channels)
            self.pam_out_conv = self._conv(self.channels)
            if with_cam:
                self.pam_conv_seg = nn.Conv2d(self.channels, self.out_channels, 1)
        if with_cam:
            self.cam_in_conv = self._conv(self.in_channels)
            self.cam = ChannelAttention(self.channels)
            self.cam_out_conv = self._conv(self.channels)
            if with_pam:
                self.cam_conv_seg = nn.Conv2d(self.channels, self.out_channels, 1)

    def _conv(self, in_channels: int) -> ConvModule:
        return ConvModule(
            in_channels,
            self.channels,
            3,
            padding=1,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )

    def _branches(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Features (B, channels, H, W) of the branches that are on, position first."""
        x = self._transform_inputs(inputs)
        features = []
        if self.with_pam:
            features.append(self.pam_out_conv(self.pam(self.pam_in_conv(x))))
        if self.with_cam:
            features.append(self.cam_out_conv(self.cam(self.cam_in_conv(x))))
        return features

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """The features (B, channels, H, W) that ``conv_seg`` classifies: the branches' sum."""
        first, *others = self._branches(inputs)
        return first + others[0] if others else first

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Fused logits (B, classes, H, W) from the backbone's feature maps."""
        return self.cls_seg(self._forward_feature(inputs))

    def loss(
        self, inputs: Sequence[Tensor], batch_data_samples: list, train_cfg: dict | None
    ) -> dict[str, Tensor]:
        """Losses of the fused classifier and, with two branches, of each branch's own classifier."""
        if not (self.with_pam and self.with_cam):
            return super().loss(inputs, batch_data_samples, train_cfg)
        pam, cam = self._branches(inputs)
        logits = {
            "pam": self._classify(self.pam_conv_seg, pam),
            "cam": self._classify(self.cam_conv_seg, cam),
            "pam_cam": self.cls_seg(pam + cam),
        }
        losses = {}
        for prefix, seg_logits in logits.items():
            losses.update(add_prefix(self.loss_by_feat(seg_logits, batch_data_samples), prefix))
        return losses

    def _classify(self, classifier: nn.Conv2d, features: Tensor) -> Tensor:
        return classifier(features if self.dropout is None else self.dropout(features))
