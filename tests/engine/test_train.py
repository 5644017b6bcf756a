"""A training: resumed bit for bit, each file read once, what it prints and what it logs."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import torch
from mmseg.registry import DATASETS

from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.config.config_file import load_config
from danseg.engine.hooks import SafeCheckpointHook
from danseg.engine.run_lock import LOCK, Holder
from danseg.engine.runner import DansegRunner
from danseg.engine.train import results, train
from danseg.errors import UserError
from equal_nests import equal
from small_run import SmallRunner

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = Path(__file__).with_name("tiny.py")
ONE_ITERATION = {"train_cfg.max_iters": 1, "default_hooks.checkpoint.interval": 1}
WORKERS = [("num_workers", 1), ("persistent_workers", True)]
# The network of a real config, made smaller, on frames of 64 x 128.
SMALL = {
    "image_scale": (128, 64),
    "crop_size": (32, 64),
    "model.pretrained": None,
    "model.backbone.depth": 18,
    "model.backbone.base_channels": 8,
    "model.backbone.stem_channels": 8,
    "model.decode_head.in_channels": 64,
    "model.decode_head.channels": 16,
    "model.decode_head.pam_channels": 4,
    "model.auxiliary_head.in_channels": 32,
    "model.auxiliary_head.channels": 8,
    "train_dataloader.batch_size": 2,
    **{f"{split}_dataloader.num_workers": 0 for split in ("train", "val", "test")},
    **{f"{split}_dataloader.persistent_workers": False for split in ("train", "val", "test")},
    "train_cfg.max_iters": 4,
    "train_cfg.val_interval": 4,
    "default_hooks.checkpoint.interval": 2,
    "default_hooks.logger.interval": 1,
}


@pytest.fixture
def loads(monkeypatch):
    """A list that collects the files that torch.load reads."""
    read, load = [], torch.load
    monkeypatch.setattr(
        torch, "load", lambda file, *args, **kw: read.append(str(file)) or load(file, *args, **kw)
    )
    return read


@pytest.fixture(scope="module")
def started(tmp_path_factory, rendered_root):
    """The results of a training of one iteration."""
    config = load_config(TINY, {"data_root": rendered_root, **ONE_ITERATION})
    config.work_dir = str(tmp_path_factory.mktemp("started"))
    train(config, log=lambda message: None)
    return Path(config.work_dir, "iter_1.pth")


def log_of(runner):
    return (Path(runner.log_dir) / f"{runner.timestamp}.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("leaf", ["danet_r50_cityscapes", "danet_r18_demo"])
def test_four_iterations_are_two_and_two_to_the_bit(tiny, tmp_path, leaf):
    """With all that the real bases use: LoadTrainingCrop, photometric distortion, dropout, recompute."""
    config = tiny(SMALL, CONFIGS / f"{leaf}.py")
    assert config.train_dataloader.dataset.pipeline[0].type == "LoadTrainingCrop" and config.recompute
    config.randomness = dict(seed=3)
    train(config)
    straight = read_checkpoint(tmp_path / "work" / "iter_4.pth")

    shutil.move(tmp_path / "work", tmp_path / "before")
    (tmp_path / "work").mkdir()
    shutil.copy(tmp_path / "before" / "iter_2.pth", tmp_path / "work")
    train(tiny(SMALL, CONFIGS / f"{leaf}.py"), resume="auto")
    resumed = read_checkpoint(tmp_path / "work" / "iter_4.pth")
    for part in ("state_dict", "optimizer", "param_schedulers", "random_states"):
        assert equal(straight[part], resumed[part]), part
    halfway = read_checkpoint(tmp_path / "before" / "iter_2.pth")
    assert not equal(halfway["state_dict"], resumed["state_dict"])


@pytest.mark.slow
@pytest.mark.parametrize("resume", ["auto", "path", "the config's"])
def test_a_resumed_checkpoint_is_read_once(tiny, tmp_path, started, loads, resume):
    path = tmp_path / ("elsewhere.pth" if resume == "path" else "work/iter_1.pth")
    path.parent.mkdir(exist_ok=True)
    shutil.copy(started, path)
    config = tiny({"train_cfg.max_iters": 2, **({"resume": True} if resume == "the config's" else {})})
    runner = train(config, resume={"auto": "auto", "path": str(path)}.get(resume))
    assert loads == [str(path)]
    assert runner.iter == 2 and runner.already_read is None
    assert f"weights:     {path}, continued after iteration 1" in log_of(runner)


def test_the_weights_to_start_from_are_read_once_and_before_anything_is_built(tiny, tmp_path, started, loads):
    runner = train(tiny({**ONE_ITERATION, "load_from": str(started)}))
    assert loads == [str(started)]
    assert runner.weights == str(started) and runner.iter == 1

    shutil.rmtree(tmp_path / "work")
    with pytest.raises(UserError, match=r"none\.pth does not exist"):
        train(tiny({**ONE_ITERATION, "load_from": str(tmp_path / "none.pth")}))
    assert not list((tmp_path / "work").iterdir())  # there is no log, because nothing was built yet


def test_weights_alone_cannot_be_resumed_from(tiny, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": {}}, path)
    with pytest.raises(UserError, match=f"without the optimizer's state.*load_from={path}"):
        train(tiny(), resume=str(path))


def test_a_folder_with_checkpoints_is_refused_or_moved_and_belongs_to_one_training(
    tiny, tmp_path, started, monkeypatch
):
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(started, work)
    before = (work / "iter_1.pth").read_bytes()

    def refused(**arguments):
        with pytest.raises(UserError) as message:
            train(tiny(ONE_ITERATION), log=lambda message: None, **arguments)
        assert (work / "iter_1.pth").read_bytes() == before and len(list(work.iterdir())) == 1
        return str(message.value)

    assert "holds the checkpoints of an earlier training: iter_1.pth" in refused()
    for resume in ("auto", str(started)):
        assert "--start-over and --resume" in refused(start_over=True, resume=resume)

    said, run = [], DansegRunner.train

    def seen(runner):
        assert Holder.read(work / LOCK).pid == os.getpid()
        monkeypatch.setattr(DansegRunner, "train", run)
        with pytest.raises(UserError, match="another training runs in"):
            train(tiny(ONE_ITERATION), log=lambda message: None, resume="auto")
        return run(runner)

    monkeypatch.setattr("danseg.engine.run_lock.CLOSING", 0.1)
    monkeypatch.setattr(DansegRunner, "train", seen)
    # It may start from the weights that are moved.
    runner = train(
        tiny({**ONE_ITERATION, "load_from": str(work / "iter_1.pth")}), start_over=True, log=said.append
    )
    [aside] = work.glob("earlier_*")
    assert (aside / "iter_1.pth").read_bytes() == before != (work / "iter_1.pth").read_bytes()
    assert f"moved to {aside}: iter_1.pth" in said and f"moved to {aside}: iter_1.pth" in log_of(runner)
    assert not (work / LOCK).exists()


def test_a_loss_that_would_not_be_trained_stops_it_before_the_first_iteration(tiny):
    config = tiny({**ONE_ITERATION, "model.auxiliary_head.loss_decode.loss_name": "ce"})
    with pytest.raises(UserError, match=r"model\.auxiliary_head \(FCNHead\): .*loss_name='loss_ce'"):
        train(config, log=lambda message: None)
    assert not list(Path(config.work_dir).glob("*.pth"))


def test_the_console_gets_a_summary_and_the_log_file_everything(tiny, tmp_path, capfd):
    runner = train(tiny({**ONE_ITERATION, "train_cfg.val_interval": 1}))
    work = tmp_path / "work"
    said, _, after = capfd.readouterr().out.partition("Iter(train)")
    assert len(said.splitlines()) < 30
    for line in (
        "train: CityscapesDataset, 6 images",
        "SafeCheckpointHook takes the place of the config's CheckpointHook",
        "train data:  6 images of CityscapesDataset, 0 workers",
        "network:     ResNetV1c, DANetHead, FCNHead (auxiliary); 0.20 million parameters",
        "weights:     random",
        "schedule:    1 iterations of 2 images, 0.3 times through the data",
        "optimiser:   SGD, learning rate 0.02, float32",
        f"seed:        {runner.seed}",
        f"results in:  {work}",
        f"{runner.timestamp}.log",
    ):
        assert line in said, line
        assert line in log_of(runner), line
    for line in ("System environment:", "default_hooks = dict(", "Hooks will be executed", "Iter(train)"):
        assert line in log_of(runner) and line not in said, line
    for line in (
        f"best checkpoint: {work / 'best_mIoU_iter_1.pth'} (mIoU",
        f"last checkpoint: {work / 'iter_1.pth'}",
        f"log:             {Path(runner.log_dir) / runner.timestamp}.log",
    ):
        assert line in after, line


def test_a_training_that_is_continued_for_longer_decays_for_longer(tiny):
    config = tiny(
        {"train_cfg.max_iters": 4, "default_hooks.checkpoint.interval": 2, "train_cfg.val_interval": 9}
    )
    train(config, log=lambda message: None)
    longer = tiny({"train_cfg.max_iters": 5, "train_cfg.val_interval": 9})
    runner = train(longer, resume=str(Path(config.work_dir, "iter_2.pth")), log=lambda message: None)
    (rate,) = runner.param_schedulers
    assert (rate.end, rate.total_iters) == (5, 4)
    log = Path(runner.log_dir, f"{runner.timestamp}.log").read_text()
    assert "PolyLR ended at 4 in" in log and "and now ends at 5; the rate goes on from 0.0" in log
    rates = [json.loads(line)["lr"] for line in scalars(runner).read_text().splitlines() if "loss" in line]
    assert rates[1] > 1e-3  # at the fourth iteration, where the rate ended before, at 1e-4


def scalars(runner):
    return Path(runner.log_dir, "vis_data", f"{runner.timestamp}.json")


@pytest.mark.parametrize(
    ("arguments", "scores", "lines"),
    [
        (dict(save_best="mDice"), dict(mIoU=10.0, mDice=27.69), ["best_mDice_iter_1.pth (mDice 27.69)"]),
        (dict(save_best="mIoU"), dict(mIoU=10.0, mDice=27.69), ["best_mIoU_iter_1.pth (mIoU 10)"]),
        (dict(save_best="auto"), dict(mDice=27.69, aAcc=9.0), ["best_mDice_iter_1.pth (mDice 27.69)"]),
        (dict(save_best="night/mFscore"), {"night/mFscore": 5.5}, ["iter_1.pth (night/mFscore 5.5)"]),
        (
            dict(save_best="loss", rule="less"),
            dict(loss=0.01234),
            ["best_loss_iter_1.pth (lowest loss 0.01234)"],
        ),
        (
            dict(save_best=["mIoU", "mDice"]),
            dict(mIoU=10.0, mDice=27.69),
            ["best_mIoU_iter_1.pth (mIoU 10)", "best_mDice_iter_1.pth (mDice 27.69)"],
        ),
        (dict(save_best="mIoU"), dict(mIoU=float("nan")), []),
        (dict(), dict(mIoU=10.0), []),
    ],
)
def test_the_best_score_is_called_by_its_name(tmp_path, arguments, scores, lines):
    hook = SafeCheckpointHook(by_epoch=False, interval=10, save_last=False, **arguments)
    runner = SmallRunner(tmp_path, [hook], [scores] * 2, max_iters=1)
    runner.timestamp = "now"
    runner.train()
    found = [line for line in results(runner).splitlines() if "best checkpoint" in line]
    assert len(found) == len(lines) and all(
        line.endswith(end) for line, end in zip(found, lines, strict=True)
    )


def test_checkpoints_and_pictures_have_the_colours_of_the_chosen_classes(tiny, tmp_path):
    """All classes in another order, of which mmseg keeps the colours in the old order."""
    record = DATASETS.get("CityscapesDataset").METAINFO
    classes = list(record["classes"][::-1])
    text = "".join(
        f"{name}_dataloader = dict(dataset=dict(metainfo=dict(classes={classes})))\n"
        for name in ("train", "val")
    )
    runner = train(tiny({**ONE_ITERATION, "train_cfg.val_interval": 1}, text=text))
    for meta in (
        read_checkpoint(tmp_path / "work" / "iter_1.pth")["meta"]["dataset_meta"],
        runner.visualizer.dataset_meta,
        runner.val_evaluator.dataset_meta,
    ):
        assert list(meta["classes"]) == classes
        assert [list(colour) for colour in meta["palette"]] == [list(one) for one in record["palette"][::-1]]


@pytest.mark.slow
def test_its_data_workers_end_with_it(tiny):
    """Not seconds later, when Python frees the runner."""
    workers = {f"{split}_dataloader.{key}": value for split in ("train", "val") for key, value in WORKERS}
    runner = train(tiny({**ONE_ITERATION, **workers}), log=lambda message: None)
    assert runner.train_dataloader.persistent_workers and not multiprocessing.active_children()
