"""A training that is stopped and resumed gives what it would have given without, to the bit.

Of each variant there is one reference: a training without data workers, without a validation before its last
checkpoint, and without a stop. All other runs of the variant have to end like it.
"""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, HOOKS
from torch.utils.data import RandomSampler

from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.config.config_file import load_config
from danseg.engine.train import train
from equal_nests import equal
from launch import launch

TINY = Path(__file__).with_name("tiny.py")
# What differs between two runs although the trainings are the same: the time, and the history.
ASIDE = {"meta", "message_hub"}
# 6 images, 2 a batch: 3 iterations are a pass.
LENGTH = 6
ITERATIONS = f"train_cfg = dict(max_iters={LENGTH}, val_interval=99)"
EPOCHS = """
train_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=True))
train_cfg = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=2, val_interval=99)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=1e-4, begin=0, end=2, by_epoch=True)]
# Beside the checkpoints of every iteration.
custom_hooks = [dict(type="CheckpointHook", by_epoch=True, interval=1)]
"""
FINITE = f"""
{ITERATIONS}
# 4 images and then 2 are a pass.
train_dataloader = dict(batch_size=4, sampler=dict(_delete_=True, type="DefaultSampler", shuffle=True))
"""
RANDOM = 'train_dataloader = dict(sampler=dict(_delete_=True, type="TorchsSampler"))'
EMA = 'custom_hooks = [dict(type="EMAHook", momentum=0.1)]'
BFLOAT16 = 'optim_wrapper = dict(type="BFloat16OptimWrapper")'
ACCUMULATED = "optim_wrapper = dict(accumulative_counts=2)"
DETERMINISTIC = "randomness = dict(deterministic=True)"
# Wrapped data sets, one of which draws a second image for each sample.
MIXED = """
_of_the_base = {**_base_.train_dataloader.dataset, "pipeline": _base_.train_pipeline[:2]}
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="MultiImageMixDataset",
        dataset=dict(type="ConcatDataset", datasets=[_of_the_base]),
        pipeline=[
            dict(type="RandomMosaic", prob=0.5, img_scale=(64, 128), seg_pad_val=255),
            *_base_.train_pipeline[2:],
        ],
    )
)
"""
VARIANTS = {
    "iterations": [ITERATIONS],
    "epochs": [EPOCHS],
    "finite sampler": [FINITE],
    "random sampler": [ITERATIONS, RANDOM],
    "epochs, random sampler": [EPOCHS, RANDOM],
    "mixed images": [ITERATIONS, MIXED],
    "EMA": [ITERATIONS, EMA],
    "bfloat16": [ITERATIONS, BFLOAT16],
    "accumulated": [ITERATIONS, ACCUMULATED],
    "deterministic": [ITERATIONS, DETERMINISTIC],
    "all": [ITERATIONS, EMA, BFLOAT16, ACCUMULATED, DETERMINISTIC],
}
WORKERS = {"none": (0, False), "2": (2, False), "2 that persist": (2, True)}


@DATA_SAMPLERS.register_module(force=True)
class TorchsSampler(RandomSampler):
    """It draws its order from PyTorch's generator and knows no epochs."""

    def __init__(self, dataset, seed=None):
        super().__init__(dataset)


@HOOKS.register_module(force=True)
class DrawingHook(Hook):
    """It draws from every generator before, in and after a validation, and saves a checkpoint there.

    In a training, it looks after the number of each batch.
    """

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        of_epochs = runner.epoch * len(runner.train_dataloader)
        assert batch_idx == runner.iter - of_epochs

    def draw(self, *args, **kwargs):
        random.random(), np.random.randn(), torch.rand(3)

    before_val = before_val_epoch = after_val_iter = after_val_epoch = draw

    def after_val(self, runner):
        self.draw()
        now = dict(epoch=runner.epoch, iter=runner.iter)
        runner.save_checkpoint(runner.work_dir, f"within_{runner.iter}.pth", meta=now)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Every checkpoint and log holds the config's text, and setting it out takes most of a tiny training."""
    monkeypatch.setattr(Config, "pretty_text", property(lambda config: ""))
    monkeypatch.setattr("mmengine.runner.loops.time.sleep", lambda seconds: None)  # before each pass
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def end_workers(loop):
    """Let go of the workers one by one: the garbage collector waits five seconds for each."""
    loop.dataloader_iterator = loop.dataloader._iterator = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("matrix")


@pytest.fixture(scope="module")
def run(folder, rendered_root):
    """Train a variant in a work dir of its own, and return that."""
    number = 0

    def run(variant, workers="none", resume=None, validations=False):
        nonlocal number
        number += 1
        base = TINY
        hook = "custom_hooks = [*_base_.get('custom_hooks', []), dict(type='DrawingHook')]"
        for depth, text in enumerate([*VARIANTS[variant], hook]):
            path = folder / f"run_{number}_{depth}.py"  # mmengine tells runs apart by this name
            path.write_text(f"_base_ = {str(base)!r}\n{text}\n")
            base = path
        processes, persistent = WORKERS[workers]
        options = {
            "data_root": rendered_root,
            "randomness.seed": 3,
            "train_dataloader.num_workers": processes,
            "train_dataloader.persistent_workers": persistent,
            "default_hooks.checkpoint.interval": 1,
            "default_hooks.checkpoint.max_keep_ckpts": -1,
            **({"train_cfg.val_interval": 1} if validations else {}),
        }
        config = load_config(base, options)
        config.launcher, config.work_dir = "none", str(folder / f"work_{number}")
        runner = train(config, resume=resume and str(resume), log=lambda message: None)
        assert runner.iter == LENGTH
        log = (Path(runner.log_dir) / f"{runner.timestamp}.log").read_text()
        assert "not exactly" not in log
        end_workers(runner.train_loop)
        return Path(config.work_dir)

    return run


@pytest.fixture(scope="module")
def references(run):
    made = {}

    def reference(variant):
        if variant not in made:
            made[variant] = run(variant)
        return made[variant]

    return reference


def differing(path, reference):
    """Which parts of two checkpoints differ; None if they are not of the same moment of the training."""
    one, other = read_checkpoint(path), read_checkpoint(reference)
    if any(one["meta"][key] != other["meta"][key] for key in ("epoch", "iter")):
        return None
    assert one.keys() == other.keys() >= {"state_dict", "optimizer", "param_schedulers", "random_states"}
    return [part for part in one.keys() - ASIDE if not equal(one[part], other[part])]


QUICK = [
    # variant, resumed from, workers, validations
    ("iterations", None, "2", True),
    ("iterations", "iter_2", "none", True),
    ("epochs", "iter_2", "2", False),
    ("epochs", "epoch_1", "none", True),
    ("all", "iter_2", "2", True),
]
# Within a pass and at its end; within an accumulation a checkpoint lacks gradients.
STOPS = {
    "accumulated": ("iter_2", "iter_4"),
    "all": ("iter_4", "iter_2"),
    "epochs": ("iter_3", "iter_4"),
    "epochs, random sampler": ("epoch_1", "iter_4"),
}
SLOW = [
    case
    for variant in VARIANTS
    for stop, workers, validations in zip(
        STOPS.get(variant, ("iter_1", "iter_3")), ("2 that persist", "none"), (True, False), strict=True
    )
    if (case := (variant, stop, workers, validations)) not in QUICK
]


@pytest.mark.parametrize(
    ("variant", "stop", "workers", "validations"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_a_resumed_training_ends_as_without_the_stop(run, references, variant, stop, workers, validations):
    reference = references(variant)
    work = run(variant, workers, stop and reference / f"{stop}.pth", validations)
    assert list(work.glob("within_*.pth"))  # one of the validation at the end, at least
    found = {
        path.name: differing(path, reference / path.name.replace("within", "iter"))
        for path in [*work.glob("iter_*.pth"), *work.glob("epoch_*.pth"), *work.glob("within_*.pth")]
    }
    # At the end of an epoch mmengine writes `iter_N` before the schedule's step, and once more, with a new
    # best, after it.
    of_one_moment = {name: parts for name, parts in found.items() if parts is not None}
    assert len(of_one_moment) > 1 and not any(of_one_moment.values()), of_one_moment
    assert ("epoch_2.pth" if "epochs" in variant else "iter_6.pth") in of_one_moment
    shutil.rmtree(work)


@pytest.mark.slow
def test_two_processes_go_on_as_without_the_stop(tmp_path, rendered_root):
    def run(name, *arguments, every=1):
        options = {
            "data_root": rendered_root,
            "train_cfg.val_interval": every,
            "train_dataloader.num_workers": 1,
            "default_hooks.checkpoint.interval": every,
            "default_hooks.checkpoint.max_keep_ckpts": -1,
        }
        given = [f"{key}={value}" for key, value in options.items()]
        always = ("--work-dir", tmp_path / name, "--deterministic", "--cfg-options", *given)
        done = launch(2, "train", TINY, *arguments, *always)
        assert done.returncode == 0, done.stderr
        assert "not exactly" not in done.stdout + done.stderr
        return tmp_path / name / "iter_4.pth"

    straight = run("straight", "--seed", 3)
    assert len(read_checkpoint(straight)["random_states"]) == 2
    assert differing(run("resumed", "--resume", straight.with_name("iter_2.pth")), straight) == []
    # Statistics of batch norms are merged for a checkpoint, and not in the training itself.
    assert differing(run("seldom saved", "--seed", 3, every=4), straight) == []
