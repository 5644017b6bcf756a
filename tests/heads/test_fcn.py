"""FullyConvolutionalHead: all that it has beside mmseg's FCNHead is in tests/heads/test_loss.py."""

from mmseg.models.decode_heads import FCNHead
from torch import nn

COMMON = dict(in_channels=24, channels=16, num_classes=5, norm_cfg=dict(type="BN"))
ARGS = dict()
WITHOUT_ATTENTION = True


def counterpart() -> nn.Module:
    return FCNHead(**COMMON, **ARGS)
