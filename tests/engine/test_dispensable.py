"""A training on a disk that is full for a time: what it can do without is missing, and nothing else."""

import importlib.util
import json
import logging
import re
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS

from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.dispensable import Dispensable, go_on_without
from danseg.engine.train import train as real_train
from danseg.errors import UserError
from full_disk import full_disk


@HOOKS.register_module()
class FullFor(Hook):
    """Fills the disk before one iteration and empties it before another one, both counted from 0."""

    priority = "HIGHEST"

    disk = ExitStack()

    def __init__(self, first: int, after: int) -> None:
        self.first, self.after = first, after

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == self.first:
            self.disk.enter_context(full_disk())
        if batch_idx == self.after:
            self.disk.close()


def train(*args, **kwargs):
    """Whatever ends the run, its disk is not that of what comes after it."""
    with FullFor.disk:
        return real_train(*args, **kwargs)


@pytest.fixture
def config(tiny, tmp_path):
    """Four iterations with a checkpoint and a validation each, and a full disk from one to another one."""

    def make(name, first, after, **hook):
        config = tiny({"train_cfg.val_interval": 1, "randomness": {"seed": 0, "deterministic": True}})
        config.default_hooks.checkpoint.update(type="SafeCheckpointHook", interval=1, **hook)
        config.custom_hooks = [dict(type="FullFor", first=first, after=after)]
        config.work_dir = str(tmp_path / name)
        return config

    yield make
    torch.use_deterministic_algorithms(False)


def files(work: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in work.glob(pattern))


def curve(folder: Path) -> list[tuple[int, float]]:
    """Steps and losses as TensorBoard reads them, from the one file that there has to be."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert len(files(folder, "events.out.tfevents.*")) == 1
    read = EventAccumulator(str(folder))
    read.Reload()
    return [(event.step, pytest.approx(event.value)) for event in read.Scalars("loss")]


def test_what_is_due_while_the_disk_is_full_is_missing_and_nothing_else(config, tmp_path, capsys):
    train(config("full", 1, 3, on_full_disk="go_on"))
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    work = tmp_path / "full"
    [log] = work.glob("*/*.log")

    for name in ("scalars", log.stem):
        lines = (log.parent / "vis_data" / f"{name}.json").read_text().splitlines()
        told = [json.loads(line) for line in lines]
        assert [line["step"] for line in told if "loss" in line] == [1, 4]
        assert [line["step"] for line in told if "mIoU" in line] == [1, 4]
    assert json.loads((log.parent / "validation.json").read_text())["iteration"] == 4
    assert files(work, "iter_*.pth") == ["iter_1.pth", "iter_4.pth"]
    assert read_checkpoint(work / "iter_4.pth")["message_hub"]["runtime_info"]["keep_ckpt_ids"] == [1, 4]
    assert (work / "last_checkpoint").read_text() == str(work / "iter_4.pth")
    assert not list(work.rglob("*.part"))

    warned = re.findall(r"WARNING\S* - (.*?): .*?; the run goes on without", said.out)
    assert sorted(warned) == sorted(
        [
            "LocalVisBackend",
            "TensorboardVisBackend",
            "checkpoints",
            "validation.json and validations.json",
            str(log),
        ]
    )
    again = re.findall(r"INFO\S* - (.*?): written again", said.out)
    assert sorted(again) == sorted(set(warned) - {str(log)})
    written = log.read_text()
    assert "Iter(train) [1/4]" in written and "Iter(train) [4/4]" in written
    assert written.endswith("(one JSON object a line)\n") or "tensorboard --logdir" in written

    if importlib.util.find_spec("tensorboard"):
        assert curve(log.parent / "vis_data") == [
            (line["step"], line["loss"]) for line in told if "loss" in line
        ]

    # Nothing of this touches what is computed.
    train(config("empty", 9, 9))
    with_room, without = (
        read_checkpoint(tmp_path / name / "iter_4.pth")["state_dict"] for name in ("empty", "full")
    )
    assert all(torch.equal(with_room[name], without[name]) for name in with_room)


def test_the_last_checkpoint_has_to_be_written(config, tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*iter_4.pth: File too large. .* --resume"):
        train(config("full", 3, 9, on_full_disk="go_on"))
    assert files(tmp_path / "full", "iter_*.pth") == ["iter_2.pth", "iter_3.pth"]


def test_a_training_stops_unless_it_is_told_to_go_on(config, tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*iter_2.pth: File too large. .* --resume"):
        train(config("full", 1, 9))
    assert files(tmp_path / "full", "iter_*.pth") == ["iter_1.pth"]


def test_there_are_two_choices(config):
    with pytest.raises(UserError, match=r"on_full_disk='wait': choose 'stop' or 'go_on'"):
        train(config("wait", 9, 9, on_full_disk="wait"))


def test_an_error_that_is_not_about_writing_is_not_kept_back():
    with pytest.raises(ZeroDivisionError):
        with Dispensable("x")():
            1 / 0  # noqa: B018


def test_a_log_that_cannot_be_written_is_mentioned_once(tmp_path, capsys):
    MMLogger.get_instance(tmp_path.name)  # whose output is captured, as the one that tells
    handler = logging.FileHandler("/dev/full")
    go_on_without(handler)
    logger = logging.Logger("full")
    logger.addHandler(handler)
    for _ in range(3):
        logger.info("a line")
    logger.info("%d", "a mistake of whoever wrote this line")
    said = "".join(capsys.readouterr())
    assert said.count("/dev/full: No space left on device; the run goes on without") == 1
    assert said.count("Traceback") == 1 and "a mistake" in said  # that is no fault of the disk
    logger.removeHandler(handler)
