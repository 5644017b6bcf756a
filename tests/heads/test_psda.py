"""PSDAHead beyond tests/heads/test_contract.py."""

import pytest
import torch
from mmseg.registry import MODELS

import danseg  # noqa: F401  (registers PSDAHead)
from small_head import COMMON

ARGS = dict(query_channels=2)


def _build(**changes):
    return MODELS.build(dict(type="PSDAHead", **{**COMMON, **ARGS, **changes}))


def test_arguments_reach_the_module():
    position = _build().pyramid_split_dual.dual.pam
    assert position.query_project.out_channels == 2
    by_default = _build(channels=128, query_channels=None).pyramid_split_dual.dual.pam
    assert by_default.query_project.out_channels == 4  # an eighth of a quarter


@pytest.mark.parametrize("part", ["pam", "cam"])
def test_both_attentions_change_the_logits(part):
    torch.manual_seed(0)
    head, x = _build().eval(), torch.randn(2, 24, 9, 13)
    without = head([x])
    getattr(head.pyramid_split_dual.dual, part).gamma.scale.data.fill_(2.0)
    assert not torch.allclose(head([x]), without, atol=1e-5)


def test_channels_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match="divisible by .* 4, got 18"):
        _build(channels=18)
