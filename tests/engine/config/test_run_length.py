"""Rates, validations and checkpoints follow the length of a training, where nobody sets them."""

from pathlib import Path

import pytest

from danseg.engine.config.config_file import load_config
from danseg.errors import UserError

CONFIGS = Path(__file__).parents[3] / "configs"
CITYSCAPES = CONFIGS / "danet_r101_cityscapes.py"
DEMO = CONFIGS / "danet_r18_demo.py"
# As mmseg's schedules are written: no number has a name.
PLAIN = """
train_cfg = dict(type="IterBasedTrainLoop", max_iters=40000, val_interval=4000)
param_scheduler = [
    dict(type="LinearLR", begin=0, end=1500, by_epoch=False),
    dict(type="PolyLR", begin=1500, end=40000, by_epoch=False),
]
default_hooks = dict(
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=4000), logger=dict(interval=50)
)
"""
EPOCHS = """
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100, val_begin=20, val_interval=10)
param_scheduler = [
    dict(type="LinearLR", begin=0, end=500, by_epoch=False),
    dict(type="CosineAnnealingLR", begin=5, end=100, T_max=95),
    dict(type="MultiStepLR", milestones=[60, 80], end=100),
]
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=10))
"""


@pytest.fixture
def base(tmp_path):
    def write(text):
        path = tmp_path / "schedule.py"
        path.write_text(text)
        return path

    return write


def changed(child, base, source, **train_cfg):
    if source == "option":
        return load_config(base, {f"train_cfg.{key}": value for key, value in train_cfg.items()})
    return child(base, f"train_cfg = {train_cfg}")


def numbers(config):
    rates = [(rate.get("begin"), rate.get("end")) for rate in config.param_scheduler]
    return config.train_cfg.get("val_interval"), config.default_hooks.checkpoint.interval, rates


@pytest.mark.parametrize("source", ["child", "option"])
def test_what_counts_iterations_follows(child, base, source):
    config = changed(child, base(PLAIN), source, max_iters=400)
    assert numbers(config) == (40, 40, [(0, 15), (15, 400)])
    assert config.default_hooks.logger.interval == 50
    assert numbers(changed(child, base(PLAIN), source, max_iters=80000)) == (
        8000,
        8000,
        [(0, 3000), (3000, 80000)],
    )
    assert numbers(changed(child, CITYSCAPES, source, max_iters=60)) == (6, 6, [(0, 60)])
    assert numbers(changed(child, DEMO, source, max_iters=60)) == (20, 20, [(0, 3), (3, 60)])


@pytest.mark.parametrize("source", ["child", "option"])
@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_the_shortest_trainings_can_run(child, base, source, length):
    for config in (changed(child, path, source, max_iters=length) for path in (base(PLAIN), DEMO)):
        val_interval, interval, rates = numbers(config)
        assert 1 <= val_interval <= length and 1 <= interval <= length
        assert all(begin < end for begin, end in rates) and rates[-1][1] == length
        assert rates[0][1] >= 2  # with one step, LinearLR leaves the rate where it begins
    by_name = load_config(DEMO, {"max_iters": length})
    assert numbers(by_name) == numbers(changed(child, DEMO, source, max_iters=length))
    assert by_name.max_iters == config.max_iters == length


@pytest.mark.parametrize("source", ["child", "option"])
def test_what_counts_epochs_follows(child, base, source):
    config = changed(child, base(EPOCHS), source, max_epochs=20)
    assert config.train_cfg.val_begin == 4 and config.train_cfg.val_interval == 2
    assert config.default_hooks.checkpoint.interval == 2
    warm_up, cosine, steps = config.param_scheduler
    assert (warm_up.begin, warm_up.end) == (0, 500)  # iterations
    assert (cosine.begin, cosine.end, cosine.T_max) == (2, 20, 19)
    assert (steps.milestones, steps.end) == ([12, 16], 20)


def test_what_is_set_stays(child, base):
    text = "train_cfg = dict(max_iters=400, val_interval=4000)\n"
    text += "default_hooks = dict(checkpoint=dict(interval=7))"
    assert numbers(child(base(PLAIN), text)) == (4000, 7, [(0, 15), (15, 400)])
    rates = [dict(type="PolyLR", begin=0, end=40000, by_epoch=False)]
    config = child(base(PLAIN), f"train_cfg = dict(max_iters=400)\nparam_scheduler = {rates}")
    assert numbers(config) == (40, 40, [(0, 40000)])
    options = {
        "train_cfg.max_iters": 400,
        "param_scheduler.0.end": 1500,
        "default_hooks.checkpoint.interval": 4000,
    }
    assert numbers(load_config(base(PLAIN), options)) == (40, 4000, [(0, 1500), (15, 400)])
    options = {"train_cfg": {"max_iters": 400, "val_interval": 4000}}
    assert numbers(load_config(base(PLAIN), options))[:2] == (4000, 40)


def test_a_length_set_below_is_proportional_to_the_last_one(child, base):
    config = child(base(PLAIN), "train_cfg = dict(max_iters=400)", "train_cfg = dict(max_iters=4000)")
    assert numbers(config) == (400, 400, [(0, 150), (150, 4000)])


@pytest.mark.parametrize("source", ["child", "option"])
def test_two_lengths_are_refused(child, source):
    with pytest.raises(UserError, match="max_iters=60 and train_cfg.max_iters=70 contradict"):
        if source == "option":
            load_config(CITYSCAPES, {"max_iters": 60, "train_cfg.max_iters": 70})
        child(CITYSCAPES, "max_iters = 60\ntrain_cfg = dict(max_iters=70)")
    with pytest.raises(UserError, match="max_iters=60 and train_cfg.max_iters=70 contradict"):
        child(CITYSCAPES, "train_cfg = dict(max_iters=70)", "max_iters = 60")
    assert child(CITYSCAPES, "max_iters = 60", "train_cfg = dict(max_iters=70)").param_scheduler[0].end == 70
