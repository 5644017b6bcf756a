"""The images of one step: of all processes, and of all iterations that are gathered for it."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from danseg.engine.config.agreement import check_agreement
from danseg.engine.config.options import configure_training
from danseg.engine.config.total_batch import base_batch_size, images_a_step, images_an_iteration, total_batch
from danseg.engine.runner import DansegRunner
from danseg.engine.summary import summary
from danseg.errors import UserError


def built(config, world_size=1):
    """A runner as it is when its loop starts. Its rate is 0.02, for 8 images; it reads 2."""
    runner = DansegRunner.from_cfg(config)
    runner._world_size = world_size
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner._val_loop = runner.build_val_loop(runner._val_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    return runner


@pytest.mark.parametrize(
    ("by", "counts", "world_size", "batch", "images"),
    [
        ("flag", 1, 1, 2, 2),
        ("flag", 4, 1, 2, 8),
        ("config", 1, 4, 2, 8),
        ("config", 4, 2, 3, 24),
    ],
)
def test_the_rate_follows_the_images_of_a_step(tiny, by, counts, world_size, batch, images):
    options = {"optim_wrapper.accumulative_counts": counts, "train_dataloader.batch_size": batch}
    config = tiny({**options, **({"auto_scale_lr.enable": True} if by == "config" else {})})
    configure_training(config, auto_scale_lr=by == "flag")
    runner = built(config, world_size)
    assert images_an_iteration(runner) == batch * world_size
    assert images_a_step(runner, runner.optim_wrapper) == images
    rates = [group["initial_lr"] for group in runner.optim_wrapper.optimizer.param_groups]
    assert rates == [pytest.approx(0.02 * images / 8)]
    said = summary(runner)
    assert f"learning rate {0.02 * images / 8:g}," in said
    assert f"iterations of {batch * world_size} images" in said
    assert (f"a step every {counts} iterations, of {images} images" in said) == (counts > 1)
    assert ("the rate is scaled by" in said) == (images != 8)


def test_a_rate_for_another_batch_is_told_where_it_is_not_scaled(tiny):
    config = tiny({"optim_wrapper.accumulative_counts": 2})
    configure_training(config)
    [told] = [said for said in check_agreement(config, "train") if "base_batch_size" in said]
    assert "=8, this run has 4: --auto-scale-lr scales it, which would be 0.01" in told
    runner = built(config)
    said = summary(runner)
    assert "learning rate 0.02," in said
    assert "a step every 2 iterations, of 4 images" in said
    assert runner.optim_wrapper.optimizer.param_groups[0]["initial_lr"] == 0.02


def test_every_group_and_every_optimiser_is_scaled_by_its_own_steps(tiny):
    config = tiny({"optim_wrapper.paramwise_cfg": {"custom_keys": {"decode_head": {"lr_mult": 10.0}}}})
    configure_training(config, auto_scale_lr=True)
    runner = built(config, world_size=2)  # half of the 8 images
    assert {group["initial_lr"] for group in runner.optim_wrapper.optimizer.param_groups} == {0.01, 0.1}
    assert "learning rates 0.01 and 0.1, float32" in summary(runner)

    def wrapper(counts):
        optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
        return OptimWrapper(optimizer, accumulative_counts=counts)

    both = OptimWrapperDict(one=wrapper(1), two=wrapper(4))
    runner.scale_lr(both, dict(enable=True, base_batch_size=4))
    assert [both[name].optimizer.param_groups[0]["lr"] for name in ("one", "two")] == [1.0, 4.0]


@pytest.mark.parametrize("settings", [None, dict(), dict(base_batch_size=None), dict(base_batch_size=0)])
@pytest.mark.parametrize("by", ["flag", "config"])
def test_a_rate_for_an_unknown_batch_is_not_scaled(tiny, by, settings):
    config = tiny()
    config.auto_scale_lr = settings if by == "flag" or settings is None else dict(settings, enable=True)
    if by == "config" and settings is None:
        assert base_batch_size(None) is None
        return
    with pytest.raises(UserError, match=r"auto_scale_lr\.base_batch_size=N"):
        configure_training(config, auto_scale_lr=by == "flag")


@pytest.mark.parametrize(
    ("config", "world_size", "total"),
    [
        (dict(train_dataloader=dict(batch_size=2)), 1, 2),
        (dict(train_dataloader=dict(batch_size=2)), 4, 8),
        (dict(train_dataloader=dict(batch_size=2), optim_wrapper=dict(accumulative_counts=4)), 3, 24),
        (dict(train_dataloader=dict(batch_size=2), optim_wrapper=dict(type="OptimWrapper")), 1, 2),
        (dict(train_dataloader=dict(batch_sampler=dict(type="BatchSampler", batch_size=5))), 2, 10),
        (dict(train_dataloader=None, optim_wrapper=None), 2, None),
        (dict(train_dataloader=dict(num_workers=0)), 2, None),
    ],
)
def test_processes_times_images_times_accumulated_iterations(config, world_size, total):
    assert total_batch(Config(config), world_size) == total
    assert total_batch(config, world_size) == total
