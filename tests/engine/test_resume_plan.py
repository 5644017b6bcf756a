"""Whether a training goes on from a checkpoint: refused, changed on request, at its end, or as it was."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from danseg.engine import resume_plan
from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.config.config_file import load_config
from danseg.engine.resume_plan import ResumePlan
from danseg.engine.train import train
from danseg.engine.training_settings import KEY, Change
from danseg.errors import UserError

OPTIONS = {
    "default_hooks.checkpoint.interval": 2,
    **{f"val_{part}": None for part in ("dataloader", "cfg", "evaluator")},
}
EPOCHS = """
train_dataloader = dict(sampler=dict(_delete_=True, type="DefaultSampler", shuffle=True))
train_cfg = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=2, val_interval=99)
"""


@pytest.fixture(scope="module")
def half(tmp_path_factory, rendered_root):
    """The checkpoint of a training that has done 2 of 4 iterations."""
    config = load_config(Path(__file__).with_name("tiny.py"), {"data_root": rendered_root, **OPTIONS})
    config.work_dir, config.randomness = str(tmp_path_factory.mktemp("half")), dict(seed=3)
    config.train_cfg.max_iters = 2  # alone: the schedule is that of 4
    train(config, log=lambda message: None)
    return str(Path(config.work_dir, "iter_2.pth"))


def log_of(runner):
    return Path(runner.log_dir, f"{runner.timestamp}.log").read_text()


def rates(runner):
    lines = Path(runner.log_dir, "vis_data", f"{runner.timestamp}.json").read_text().splitlines()
    return [one["lr"] for one in map(json.loads, lines) if "loss" in one]


def test_another_rate_is_refused_or_acts(tiny, half):
    """From 0.02 to 0.01: iterations 3 and 4 of a PolyLR over 4, whose last step is its fourth."""
    options = {**OPTIONS, "optim_wrapper.optimizer.lr": 0.01}
    with pytest.raises(UserError) as refused:
        train(tiny(options), resume=half, log=lambda message: None)
    message = str(refused.value)
    assert f"{half} was trained with other settings" in message and message.count("in the checkpoint") == 1
    assert "\n  optim_wrapper.optimizer.lr: 0.02 in the checkpoint, 0.01 in this run\n" in message
    assert "--cfg-options optim_wrapper.optimizer.lr=0.02" in message and "--apply-changes" in message
    config = tiny(options)
    assert not list(Path(config.work_dir).glob("*.pth"))

    runner = train(config, resume=half, apply_changes=True, log=lambda message: None)
    expected = [(0.01 - 1e-4) * (1 - step / 3) ** 0.9 + 1e-4 for step in (2, 3)]
    assert rates(runner) == pytest.approx(expected, rel=1e-9)
    assert "does not go on as it was" in log_of(runner) and "optim_wrapper.optimizer.lr: 0.02 in" in log_of(
        runner
    )

    # What it writes is trained with the new rate: it goes on without another word.
    path = str(Path(config.work_dir, "iter_4.pth"))
    assert json.loads(read_checkpoint(path)[KEY])["optim_wrapper"]["optimizer"]["lr"] == 0.01
    again = train(tiny(options), resume=path, log=lambda message: None)
    assert again.iter == 4 and "does not go on" not in log_of(again)
    assert f"{path} is the end of this training, train_cfg.max_iters=4: nothing is left to train" in log_of(
        again
    )


def test_another_optimiser_and_loop_are_refused_or_act(tiny, half):
    optimizer = {"optim_wrapper.optimizer": dict(_delete_=True, type="AdamW", lr=0.001)}
    config = tiny({**OPTIONS, **optimizer}, text=EPOCHS)
    with pytest.raises(UserError) as refused:
        train(config, resume=half, log=lambda message: None)
    for line in (
        "optim_wrapper.optimizer.type: SGD in the checkpoint, AdamW in this run",
        "optim_wrapper.optimizer.momentum: 0.9 in the checkpoint, None in this run",
        "train_cfg.by_epoch: False in the checkpoint, True in this run",
        "train_dataloader.sampler.type: InfiniteSampler in the checkpoint, DefaultSampler in this run",
    ):
        assert f"\n  {line}\n" in str(refused.value)
    runner = train(tiny({**OPTIONS, **optimizer}, text=EPOCHS), resume=half, apply_changes=True, log=print)
    assert "is of another type: it starts with fresh moments" in log_of(runner)
    assert type(runner.optim_wrapper.optimizer) is torch.optim.AdamW
    steps = {int(one["step"]) for one in runner.optim_wrapper.optimizer.state.values()}
    assert (runner.epoch, runner.iter, steps) == (2, 6, {4})  # 3 batches an epoch, 2 were done


@pytest.fixture
def plan(monkeypatch):
    """Make a plan of a small network's training, for which ``changes`` are found."""

    def make(changes=(), apply=False, **place):
        monkeypatch.setattr(resume_plan, "changes_since", lambda *args: list(changes))
        said = []
        optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        runner = SimpleNamespace(
            optim_wrapper=OptimWrapper(optimizer),
            param_schedulers=None,
            train_loop=SimpleNamespace(max_iters=4, max_epochs=1),
            apply_changes=apply,
            logger=SimpleNamespace(warning=said.append),
            seed=5,
        )
        meta = {"epoch": 0, "iter": 2, "seed": 3, **place}
        checkpoint = {"meta": meta, "optimizer": runner.optim_wrapper.state_dict()}
        checkpoint["message_hub"] = {}
        return ResumePlan(runner, checkpoint, "a.pth"), checkpoint, said

    return make


def test_the_place_of_a_checkpoint_lies_within_the_training(plan, monkeypatch):
    assert plan()[2] == [] and plan(iter=0)[2] == []
    [end] = plan(iter=4)[2]
    assert end.startswith(
        "a.pth is the end of this training, train_cfg.max_iters=4: nothing is left to train"
    )
    with pytest.raises(
        UserError, match=r"after 5 iterations, and this training ends .* at train_cfg.max_iters=4: "
    ):
        plan(iter=5)
    for place in (dict(iter=-1), dict(epoch=-1)):
        with pytest.raises(UserError, match="use another file"):
            plan(**place)
    monkeypatch.setattr(resume_plan, "EpochBasedTrainLoop", SimpleNamespace)
    assert plan(iter=5)[2] == []
    assert "train_cfg.max_epochs=1" in plan(epoch=1, iter=5)[2][0]
    with pytest.raises(UserError, match=r"after 2 epochs, .* at train_cfg.max_epochs=1"):
        plan(epoch=2, iter=10)


@pytest.mark.parametrize(
    ("place", "anew"),
    [
        ("optim_wrapper.clip_grad", True),
        ("param_scheduler.0.power", True),
        ("processes", True),
        ("model.backbone.depth", False),
        ("images", False),
        ("randomness.seed", False),
    ],
)
def test_optimisers_are_made_anew_where_a_change_acts_on_them(plan, place, anew):
    change = Change(place, 1, 2)
    with pytest.raises(UserError, match=place):
        plan([change])
    made, checkpoint, _ = plan([change], apply=True)
    assert made.anew == anew
    assert checkpoint["meta"]["seed"] == (5 if place == "randomness.seed" else 3)
