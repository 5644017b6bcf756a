"""Random states survive a checkpoint and give the same numbers again."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.hooks.random_state import capture, restore
from danseg.engine.train import train
from equal_nests import equal


def draw(device):
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(2, device=device).tolist()


def test_numbers_continue_after_a_round_trip_through_a_file(tmp_path, device):
    np.random.randn()  # NumPy's generator now stores a second Gaussian number
    torch.save({"state_dict": {}, "random_states": [capture()]}, tmp_path / "a.pth")
    expected = draw(device)
    draw(device)
    restore(read_checkpoint(tmp_path / "a.pth")["random_states"][0])
    assert draw(device) == expected


EPOCHS = """
# 6 images, 2 a batch: 3 iterations an epoch.
train_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=True))
train_cfg = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=2, val_interval=9)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=1e-4, begin=0, end=2, by_epoch=True)]
randomness = dict(seed=3)
"""


@pytest.fixture(autouse=True)
def plain_texts(monkeypatch):
    """Every checkpoint and log holds the config's text, and setting it out takes most of a tiny training."""
    monkeypatch.setattr(Config, "pretty_text", property(lambda config: ""))


@pytest.fixture
def check(tiny, tmp_path):
    """Train straight, then resume from some of its checkpoints; compare all that follows to the bit."""

    def check(halves, options, text=""):
        keep_all = {"default_hooks.checkpoint.interval": 1, "default_hooks.checkpoint.max_keep_ckpts": -1}
        options = {**keep_all, **options}
        work, whole = tmp_path / "work", tmp_path / "straight"
        straight = train(tiny(options, text=text), log=lambda message: None)
        work.rename(whole)
        before = losses(whole)
        assert len(set(before)) == len(before)  # else a run that repeats its numbers would go unnoticed
        for half in halves:
            work.mkdir()
            shutil.copy(whole / half, work)
            resumed = train(tiny(options, text=text), resume=str(work / half), log=lambda message: None)
            assert (straight.iter, straight.epoch) == (resumed.iter, resumed.epoch)
            after = losses(work)
            assert after == before[len(before) - len(after) :], half
            names = [path.name for path in work.glob("*.pth") if path.name != half]
            assert names
            for name in names:
                one, other = (read_checkpoint(folder / name) for folder in (whole, work))
                assert one.keys() == other.keys() and "state_dict" in one
                for part in one.keys() - {"meta", "message_hub"}:  # the time and the history
                    assert equal(one[part], other[part]), (half, name, part)
            shutil.rmtree(work)

    return check


def losses(work):
    """The losses of all iterations in a work dir, with the iteration and the rate that the log tells."""
    (path,) = Path(work).glob("*/vis_data/2*.json")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["iter"], line["lr"], line["loss"]) for line in lines if "loss" in line]


@pytest.mark.slow
def test_epochs_with_workers_continue_to_the_bit_after_an_epoch(check):
    """Workers that do not outlive an epoch are seeded as in the uninterrupted run."""
    check(
        ["epoch_1.pth"],
        {"default_hooks.checkpoint.by_epoch": True, "train_dataloader.num_workers": 1},
        EPOCHS,
    )


@pytest.mark.slow
def test_epochs_continue_to_the_bit_within_an_epoch(check):
    """Also after its last iteration, before what follows at its end."""
    check(["iter_2.pth", "iter_3.pth"], {}, EPOCHS)


@pytest.mark.slow
def test_an_epoch_of_another_length_starts_anew_and_says_so(tiny, tmp_path):
    options = {"default_hooks.checkpoint.interval": 4, "train_cfg.max_epochs": 2}
    train(tiny(options, text=EPOCHS), log=lambda message: None)
    options["train_dataloader.batch_size"] = 1
    checkpoint = str(tmp_path / "work" / "iter_4.pth")
    runner = train(tiny(options, text=EPOCHS), resume=checkpoint, apply_changes=True, log=print)
    assert runner.iter == 4 + 6
    log = (Path(runner.log_dir) / f"{runner.timestamp}.log").read_text()
    assert "Epoch 2 starts anew and its random numbers afresh: the checkpoint is of iteration 4" in log
