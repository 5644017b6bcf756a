"""Rates by name that act on nothing, against the groups that mmengine makes."""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from danseg.engine.own_rates import idle_rates
from danseg.errors import UserError


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
        self.decode_head = nn.Linear(2, 2)
        self.scale = nn.Parameter(nn.Linear(1, 1).weight.detach())


def config(**keys: float) -> dict:
    custom = {name.replace("__", "."): dict(lr_mult=factor) for name, factor in keys.items()}
    return dict(optimizer=dict(type="SGD", lr=1.0), paramwise_cfg=dict(custom_keys=custom))


@pytest.mark.parametrize(
    ("keys", "idle"),
    [
        (dict(backbone=2, head=3), []),
        (dict(backbone__0=2, backbone__1=3, backbone=4), ["backbone"]),
        (dict(scale=2), []),
        (dict(neck_of_another=5, backbone=2), ["neck_of_another"]),
    ],
)
def test_what_mmengine_gives_to_no_group_is_named(keys, idle):
    wrapper = config(**keys)
    said = idle_rates(Network(), wrapper)
    assert [one.split("custom_keys.")[1].split(" ")[0] for one in said] == idle
    groups = build_optim_wrapper(Network(), wrapper).optimizer.param_groups
    rates = {group["lr"] for group in groups}
    for name, factor in keys.items():
        assert (factor in rates) == (name.replace("__", ".") not in idle)


def test_a_slip_is_refused_with_the_name_that_was_meant():
    with pytest.raises(UserError, match=r"deocde_head is in the name of no .* mean 'decode_head'"):
        idle_rates(Network(), config(deocde_head=10))


def test_other_constructors_and_built_optimisers_are_left_alone():
    wrapper = config(nothing_like_it=1)
    assert idle_rates(Network(), {**wrapper, "constructor": "Mine"}) == []
    assert idle_rates(Network(), build_optim_wrapper(Network(), config(backbone=1))) == []
