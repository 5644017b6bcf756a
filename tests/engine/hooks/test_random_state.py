"""Random states survive a checkpoint and give the same numbers again; what cannot go on exactly is said.

That a resumed training ends as without the stop is tested in tests/engine/test_resume_matrix.py.
"""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, LOOPS
from mmengine.runner import BaseLoop
from torch.utils.data import BatchSampler

from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.hooks.random_state import RandomStateHook, capture, restore
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


def test_a_block_that_draws_leaves_the_numbers_and_what_is_saved_in_it(device):
    hook = RandomStateHook()
    before = capture()
    with pytest.raises(KeyError), hook.aside():
        draw(device)
        hook.gather()
        checkpoint = {"optimizer": {}}
        raise KeyError
    assert equal(capture(), before) and equal(hook._to_store, [before])
    draw(device)
    hook.gather()
    assert not equal(hook._to_store, [before])


EPOCHS = """
# 6 images, 2 a batch: 3 iterations an epoch.
train_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=True))
train_cfg = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=2, val_interval=9)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=1e-4, begin=0, end=2, by_epoch=True)]
"""
OTHER_BATCHES = 'train_dataloader = dict(batch_sampler=dict(type="OwnBatches", drop_last=False))'


@DATA_SAMPLERS.register_module(force=True)
class OwnBatches(BatchSampler):
    """It may read ahead."""


@pytest.fixture(autouse=True)
def plain_texts(monkeypatch):
    """Every checkpoint and log holds the config's text, and setting it out takes most of a tiny training."""
    monkeypatch.setattr(Config, "pretty_text", property(lambda config: ""))


@pytest.fixture
def said(tiny, tmp_path):
    """Train to the first half, change the checkpoint, resume it; what the log then says of exactness."""

    def said(half, options=None, text="", resumed_text="", change=lambda checkpoint: None):
        once = {"default_hooks.checkpoint.interval": half, "randomness.seed": 3}
        train(tiny(once, text=text), log=lambda message: None)
        path = tmp_path / "work" / f"iter_{half}.pth"
        checkpoint = read_checkpoint(path)
        change(checkpoint)
        torch.save(checkpoint, path)
        changed = tiny({**once, **(options or {})}, text=text + resumed_text)
        runner = train(changed, resume=str(path), log=lambda message: None)
        log = (Path(runner.log_dir) / f"{runner.timestamp}.log").read_text()
        lines = [line for line in log.splitlines() if "not exactly as" in line]
        assert len(lines) <= 1
        return runner, "".join(lines)

    return said


@pytest.mark.slow
def test_an_epoch_of_another_length_starts_anew_and_says_so(said):
    runner, line = said(4, {"train_dataloader.batch_size": 1}, EPOCHS)
    assert runner.iter == 4 + 6
    assert "epoch 2 starts anew, because the checkpoint is of iteration 4 and an epoch now has 6" in line
    assert "the number of images an iteration was 2 and is 1 now" in line


