"""ISANetHead beyond tests/heads/test_contract.py: blocks that do and do not divide the map."""

import pytest
import torch
from mmseg.models.decode_heads import ISAHead
from mmseg.registry import MODELS
from torch import nn

import danseg  # noqa: F401  (registers ISANetHead)
from danseg.attention import InterlacedSparseAttention
from danseg.visualization.attention_recording import record_attention
from danseg.visualization.attention_switch import switched_off
from drawn_head import build
from small_head import COMMON

ARGS = dict(isa_channels=8, down_factor=(4, 4))
# Weights sum to 1, so it reaches every position alike, and batch norm cancels it.
ZERO_GRADIENT = [f"{relation}_relation.value_project.bias" for relation in ("global", "local")]


def counterpart() -> nn.Module:
    return ISAHead(**COMMON, **ARGS)


@pytest.mark.parametrize("factor", [(3, 13), (2, 5), (16, 16)], ids=str)
def test_every_block_size_equals_mmsegs(factor, device):
    theirs = ISAHead(**COMMON, isa_channels=4, down_factor=factor).double().eval()
    ours = MODELS.build(dict(COMMON, type="ISANetHead", isa_channels=4, down_factor=factor)).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 24, 9, 13, dtype=torch.float64).to(device)
    ours.to(device), theirs.to(device)
    with torch.no_grad():
        torch.testing.assert_close(ours([x]), theirs([x]), rtol=1e-10, atol=1e-12)


def test_its_recorded_views_are_those_of_the_module_with_its_relations(device):
    head = build("ISANetHead", torch.float64, device).eval()
    module = InterlacedSparseAttention(16, 8, (4, 4)).to(device, torch.float64).eval()
    relations = {key: value for key, value in head.state_dict().items() if "_relation." in key}
    module.load_state_dict({"gamma.scale": torch.tensor(0.7), **relations}, strict=True)
    x, ran = torch.randn(2, 24, 9, 13, dtype=torch.float64).to(device), []
    with record_attention(head) as recorded, torch.no_grad():
        head([x])
    [shown] = recorded.values()
    assert shown.map_size == (9, 13)
    assert list(shown.views) == ["", "far", "near"]
    with torch.no_grad():
        features = head.in_conv(x)
        head.in_conv.register_forward_hook(lambda *_: ran.append(True))
        for view in module.attention_views():
            expected = view.begin(features)([(8, 0), (4, 6)])
            torch.testing.assert_close(shown.show([(8, 0), (4, 6)], view.name), expected)
    assert not ran  # a map needs no 3x3 convolution of the backbone's features


def test_without_attention_the_head_concatenates_zeros(device):
    head = build("ISANetHead", device=device).eval()
    x = torch.randn(1, 24, 9, 13).to(device)
    with torch.no_grad():
        features = head.in_conv(x)
        expected = head.cls_seg(head.out_conv(torch.cat([torch.zeros_like(features), features], dim=1)))
        assert not torch.allclose(head([x]), expected)
        with switched_off(head, ""):
            assert torch.equal(head([x]), expected)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"down_factor.*\(8, 0\)"):
        MODELS.build(dict(COMMON, type="ISANetHead", isa_channels=4, down_factor=(8, 0)))
