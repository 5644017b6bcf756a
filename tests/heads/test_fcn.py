"""FullyConvolutionalHead: all that it has beside mmseg's FCNHead is in tests/heads/test_loss.py."""

from mmseg.models.decode_heads import FCNHead
from torch import nn

from small_head import COMMON

ARGS = dict()
WITHOUT_ATTENTION = True


def counterpart() -> nn.Module:
    return FCNHead(**COMMON, **ARGS)
