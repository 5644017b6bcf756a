"""Rates of modules below the lowest rate of a schedule, which would raise them."""

import pytest
import torch
from mmengine.optim.scheduler import PolyLR

from broken_config import messages, only_names, tiny_with
from danseg.engine.config.agreement import check_agreement

KEYS = "optim_wrapper.paramwise_cfg"
ETA = "param_scheduler.0.eta_min"


def test_mmengine_raises_a_rate_of_zero():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.0)
    schedule = PolyLR(optimizer, power=0.9, eta_min=1e-4, end=4, by_epoch=False)
    optimizer.step()
    schedule.step()
    assert 0 < optimizer.param_groups[0]["lr"] < 1e-4


@pytest.mark.parametrize("factor", [0, 0.004])  # of a rate of 0.02, and 1e-4 at the end
def test_a_modules_rate_below_the_last_one_is_refused(factor):
    custom = {KEYS: dict(custom_keys={"backbone": dict(lr_mult=factor)})}
    only_names(messages(custom, "train"), f"{KEYS}.custom_keys.backbone.lr_mult", ETA)
    only_names(messages({KEYS: dict(bias_lr_mult=factor)}, "train"), f"{KEYS}.bias_lr_mult", ETA)
    assert not messages({**custom, ETA: 0}, "train")


def test_rates_above_it_are_fine():
    assert not messages({KEYS: dict(custom_keys={"backbone": dict(lr_mult=0.005)})}, "train")
    momentum = [dict(type="CosineAnnealingMomentum", T_max=4, eta_min=0.5, by_epoch=False)]
    options = {KEYS: dict(custom_keys={"backbone": dict(lr_mult=0)}), "param_scheduler": momentum}
    assert not messages(options, "train"), "a momentum has a lowest value too"


def test_a_rate_below_it_is_told():
    said = check_agreement(tiny_with({"optim_wrapper.optimizer.lr": 6e-5}), "train")
    assert any(f"optimizer.lr=6e-05 is below {ETA}=0.0001" in one for one in said)
    assert not check_agreement(tiny_with({"optim_wrapper.optimizer.lr": 6e-5}), "test")
