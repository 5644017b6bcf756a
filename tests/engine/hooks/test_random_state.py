"""Random states survive a checkpoint and give the same numbers again; what cannot go on exactly is said.

That a resumed training ends as without the stop is tested in tests/engine/test_resume_matrix.py.
"""

import copy
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler, DataLoader

from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.config.config_file import load_config
from danseg.engine.hooks.random_state import RandomStateHook, capture, restore
from danseg.engine.train import train
from equal_nests import equal

TINY = Path(__file__).parents[1] / "tiny.py"


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
        raise KeyError
    assert equal(capture(), before) and equal(hook._to_store, [before])
    draw(device)
    hook.gather()
    assert not equal(hook._to_store, [before])


EPOCHS = """
# 6 images, 2 a batch: 3 iterations an epoch.
train_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=True))
train_cfg = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=1, val_interval=9)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=1e-4, begin=0, end=1, by_epoch=True)]
"""
OWN_BATCHES = {"train_dataloader.batch_sampler": dict(type="OwnBatches", drop_last=False)}
OPTIONS = {"default_hooks.checkpoint.interval": 1, "randomness.seed": 3}


@DATA_SAMPLERS.register_module(force=True)
class OwnBatches(BatchSampler):
    """It may read ahead."""


@pytest.fixture(autouse=True)
def plain_texts(monkeypatch):
    """Every checkpoint and log holds the config's text, and setting it out takes most of a tiny training."""
    monkeypatch.setattr(Config, "pretty_text", property(lambda config: ""))


@pytest.fixture(scope="module")
def half(tmp_path_factory, rendered_root):
    """The content of a checkpoint after one iteration."""
    config = load_config(TINY, {"data_root": rendered_root, **OPTIONS, "train_cfg.max_iters": 1})
    config.work_dir = str(tmp_path_factory.mktemp("half"))
    train(config, log=lambda message: None)
    return read_checkpoint(Path(config.work_dir, "iter_1.pth"))


@pytest.fixture
def said(tiny, tmp_path):
    """Resume from a checkpoint; what the log then says of exactness, piece by piece."""

    def said(checkpoint, options=None, text="train_cfg = dict(max_iters=2)"):
        torch.save(checkpoint, tmp_path / "half.pth")
        options = {**OPTIONS, **(options or {})}
        checkpoint = str(tmp_path / "half.pth")
        config = tiny(options, text=text)
        runner = train(config, resume=checkpoint, apply_changes=True, log=lambda message: None)
        log = (Path(runner.log_dir) / f"{runner.timestamp}.log").read_text()
        lines = [line for line in log.splitlines() if "not exactly" in line]
        assert len(lines) <= 1
        return "".join(lines).partition("without the interruption: ")[2].rstrip(".").split("; ")

    return said


def test_all_that_cannot_go_on_exactly_is_said_at_once(half, said):
    half = copy.deepcopy(half)
    half["random_states"].append(half["random_states"][0])
    half["sample_order"].update(seed=4, images=5, images_an_iteration=4)
    hooks = [dict(type="EarlyStoppingHook", monitor="mIoU")]
    options = {**OWN_BATCHES, "optim_wrapper.accumulative_counts": 4, "custom_hooks": hooks}
    assert said(half, options) == [
        "the network's random numbers start afresh, because the checkpoint holds the state of 2 processes "
        "and this run has 1",
        "EarlyStoppingHook, which checkpoints do not hold, begins to wait anew",
        "the seed of the samples was 4 and is 3 now",
        "the number of training images was 5 and is 6 now",
        "the number of images an iteration was 4 and is 2 now",
        "the checkpoint of iteration 1 lies within the 4 iterations (optim_wrapper.accumulative_counts) of a "
        "step and lacks the first 1's gradient",
        "mmengine moves the loader's OwnBatches on, which may draw other numbers by that",
    ]


def test_a_checkpoint_of_another_device_and_version_and_batches_within_an_epoch(half, said):
    state = {**half["random_states"][0], "cuda": torch.get_rng_state()}
    half = {**half, "random_states": [state]}
    del half["sample_order"]
    assert said(half, OWN_BATCHES, EPOCHS) == [
        "the network's random numbers start afresh, because the checkpoint was written on a GPU and this run "
        "is on a CPU",
        "the checkpoint does not say how its samples were drawn: an earlier version wrote it",
        "epoch 1 starts anew, because its OwnBatches cannot leave out 1 batches",
    ]


def test_a_loader_of_other_making_is_said_not_to_be_seeded():
    class Pictures(list):
        pipeline = (np.random.RandomState(0),)

    loader = DataLoader(Pictures([torch.zeros(1)]))
    said = []
    runner = SimpleNamespace(
        train_loop=SimpleNamespace(dataloader=loader, epoch=1),
        train_dataloader=loader,
        optim_wrapper=OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1)),
        logger=SimpleNamespace(warning=said.append),
        iter=1,
        world_size=1,
        hooks=[],
    )
    hook = RandomStateHook()
    hook.before_save_checkpoint(runner, checkpoint := {"optimizer": {}})
    hook.gather()
    hook.after_load_checkpoint(runner, {**checkpoint, "random_states": hook._to_store})
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    hook.before_train_epoch(runner)
    (line,) = said
    assert line.partition("interruption: ")[2].split("; ") == [
        "RandomState in the pipeline draws from a generator of its own, which checkpoints do not hold",
        "the samples of Pictures are not seeded one by one.",
    ]


def test_a_training_that_goes_on_exactly_has_nothing_to_say(half, said):
    assert said(half) == [""]


@pytest.mark.slow
def test_an_epoch_of_another_length_starts_anew(tiny, tmp_path, said):
    train(tiny({**OPTIONS, "train_cfg.max_epochs": 1}, text=EPOCHS), log=lambda message: None)
    checkpoint = read_checkpoint(tmp_path / "work" / "iter_2.pth")
    checkpoint["meta"].update(epoch=1, iter=5)
    shutil.rmtree(tmp_path / "work")
    found = said(checkpoint, {"train_dataloader.batch_size": 1, "train_cfg.max_epochs": 2}, EPOCHS)
    assert found == [
        "the number of images an iteration was 2 and is 1 now",
        "epoch 2 starts anew, because the checkpoint is of iteration 5 and an epoch now has 6 iterations",
    ]
