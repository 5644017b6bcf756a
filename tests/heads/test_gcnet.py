"""GCNetHead beyond tests/heads/test_contract.py: its variants, and what its features contain."""

import pytest
import torch
from mmseg.models.decode_heads import GCHead
from mmseg.registry import MODELS
from torch import nn

import danseg  # noqa: F401  (registers GCNetHead)
from small_head import COMMON

ARGS = dict()
ZERO_GRADIENT = ["gc_block.conv_mask.bias"]  # the softmax cancels it


def counterpart() -> nn.Module:
    return GCHead(**COMMON, **ARGS)


def _build(**changes) -> nn.Module:
    return MODELS.build(dict(type="GCNetHead", **{**COMMON, **ARGS, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        dict(ratio=1 / 16),
        dict(pooling_type="avg"),
        dict(fusion_types=("channel_add", "channel_mul")),
        dict(concat_input=False),
    ],
    ids=str,
)
def test_variants_equal_mmsegs(changes, device):
    ours, theirs = _build(**changes).double().eval(), GCHead(**{**COMMON, **changes}).double().eval()
    for parameter in ours.gc_block.parameters():
        nn.init.normal_(parameter, 0.3, 0.3)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    inputs = [torch.randn(2, 24, 9, 13, dtype=torch.float64).to(device)]
    ours.to(device), theirs.to(device)
    torch.testing.assert_close(ours(inputs), theirs(inputs), rtol=1e-10, atol=1e-12)


def test_features_contain_the_context():
    head, inputs = _build().eval(), [torch.randn(1, 24, 9, 13)]
    without = head._forward_feature(inputs)  # the block starts as the identity
    nn.init.constant_(head.gc_block.channel_add_conv[-1].bias, 1.0)
    assert not torch.allclose(head._forward_feature(inputs), without, atol=1e-3)
