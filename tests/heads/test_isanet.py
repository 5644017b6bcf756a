"""ISANetHead beyond tests/heads/test_contract.py: blocks that do and do not divide the map."""

import pytest
import torch
from mmseg.models.decode_heads import ISAHead
from mmseg.registry import MODELS
from torch import nn

import danseg  # noqa: F401  (registers ISANetHead)
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


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"down_factor.*\(8, 0\)"):
        MODELS.build(dict(COMMON, type="ISANetHead", isa_channels=4, down_factor=(8, 0)))
