"""AttentionHead: how it finds and builds the module that a config names."""

import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

import danseg.attention
import danseg.heads  # noqa: F401  (registration)
from small_head import COMMON

ARGS = dict(attention=dict(type="PositionAttention", query_channels=4))


def build(attention, **changes):
    return MODELS.build(dict(COMMON, type="AttentionHead", attention=attention, **changes))


@pytest.mark.parametrize(
    "name", [n for n in danseg.attention.__all__ if n not in ("NonLocal1d", "NonLocal3d")]
)
def test_makes_a_head_of_every_module(name, device):
    head = build(dict(type=name)).eval().to(device)
    assert type(head.attention) is getattr(danseg.attention, name)
    assert head([torch.randn(2, 24, 9, 13).to(device)]).shape == (2, 5, 9, 13)


def test_arguments_reach_the_module():
    assert build(ARGS["attention"]).attention.query_project.out_channels == 4


def test_a_users_own_module_is_found_in_mmsegs_registry():
    class Mine(nn.Identity):
        def __init__(self, in_channels):
            super().__init__()

    MODELS.register_module(name="MineOfTheTest", module=Mine)
    try:
        assert type(build(dict(type="MineOfTheTest")).attention) is Mine
    finally:
        MODELS.module_dict.pop("MineOfTheTest")


def test_unknown_and_missing_types_name_what_there_is():
    for attention in (dict(type="CBAMM"), dict(reduction=4)):
        with pytest.raises((ValueError), match="PositionAttention"):
            build(attention)


def test_misspelt_arguments_are_errors():
    with pytest.raises(TypeError, match="query_channel"):
        build(dict(type="PositionAttention", query_channel=4))
