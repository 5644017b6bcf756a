"""NonLocalHead beyond tests/heads/test_contract.py: every mode against mmseg's head."""

import pytest
import torch
from mmseg.models.decode_heads import NLHead
from mmseg.registry import MODELS
from torch import nn

import danseg  # noqa: F401  (registers NonLocalHead)
from danseg.attention.non_local import MODES
from small_head import COMMON

ARGS = dict()
# The softmax cancels φ's bias; g's bias reaches every position alike, and the batch norm cancels it.
ZERO_GRADIENT = ["nl_block.phi.conv.bias", "nl_block.g.conv.bias"]

# Its prefix sums.
NOT_REPEATABLE = {str(dict(mode="concatenation")): "cumsum"}


def counterpart() -> nn.Module:
    return NLHead(**COMMON, **ARGS)


@pytest.mark.parametrize("norm_cfg", [dict(type="BN"), dict(type="GN", num_groups=4), None], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_equals_mmsegs(mode, norm_cfg, device):
    arguments = dict(COMMON, mode=mode, reduction=4, use_scale=False, concat_input=False, norm_cfg=norm_cfg)
    theirs = NLHead(**arguments).double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, 0.05, 0.2)
    ours = MODELS.build(dict(arguments, type="NonLocalHead")).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 24, 5, 7, dtype=torch.float64).to(device)
    ours.to(device), theirs.to(device)
    with torch.no_grad():
        torch.testing.assert_close(ours([x]), theirs([x]), rtol=1e-10, atol=1e-12)


def test_sub_sampling_reaches_the_block():
    assert MODELS.build(dict(COMMON, type="NonLocalHead", sub_sample=True)).nl_block.sub_sample
