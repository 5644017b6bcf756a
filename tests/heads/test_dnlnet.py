"""DNLNetHead beyond tests/heads/test_contract.py."""

from mmseg.models.decode_heads import DNLHead
from mmseg.registry import MODELS
from torch import nn

import danseg  # noqa: F401  (registers DNLNetHead)
from small_head import COMMON

# mmseg divides by float32 numbers in any precision: 1/2 and the root of 16 / 4 are exact there.
ARGS = dict(temperature=0.5, reduction=4)
# Centring cancels the biases of θ and φ, the softmax that of the mask, and the batch norm that of g.
ZERO_GRADIENT = [f"dnl_block.{name}.bias" for name in ("g.conv", "theta.conv", "phi.conv", "conv_mask")]


def counterpart() -> nn.Module:
    return DNLHead(**COMMON, **ARGS)


def test_arguments_reach_the_block():
    head = MODELS.build(dict(COMMON, type="DNLNetHead", mode="dot_product", temperature=0.1, use_scale=False))
    block = head.dnl_block
    assert (block.mode, block.temperature, block.use_scale) == ("dot_product", 0.1, False)
    assert block.theta.conv.out_channels == 8
    head = MODELS.build(dict(COMMON, type="DNLNetHead", use_out=False, centring="layer"))
    assert isinstance(head.dnl_block.conv_out, nn.Identity) and head.dnl_block.centring == "layer"
