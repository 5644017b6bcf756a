"""EPSANetHead beyond tests/heads/test_contract.py."""

import pytest
import torch
from mmseg.registry import MODELS

import danseg  # noqa: F401  (registers EPSANetHead)
from small_head import COMMON

ARGS = dict(reduction=2)


def _build(**changes):
    return MODELS.build(dict(type="EPSANetHead", **{**COMMON, **ARGS, **changes}))


def test_arguments_reach_the_module():
    assert _build().pyramid_split.se.fc1.out_channels == 2
    assert _build(reduction=4).pyramid_split.se.fc1.out_channels == 1


def test_attention_changes_the_logits():
    torch.manual_seed(0)
    head, x = _build().eval(), torch.randn(2, 24, 9, 13)
    with_attention = head([x])
    head.pyramid_split.se.fc2.weight.data.zero_()  # every branch weighs a quarter
    assert not torch.allclose(head([x]), with_attention, atol=1e-5)


def test_channels_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match="divisible by .* 4, got 18"):
        _build(channels=18)
