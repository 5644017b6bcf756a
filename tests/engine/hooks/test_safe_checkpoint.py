"""No old checkpoint is deleted before the new one is complete."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from danseg.engine.hooks import SafeCheckpointHook
from danseg.errors import UserError
from danseg.evaluation.confusion import Scores
from danseg.evaluation.metric import IOU_METRICS, ExactIoUMetric


class Runner:
    """A runner whose checkpoints are empty files, and whose disk can be full."""

    def __init__(self, work_dir):
        self.warned = []
        self.work_dir, self.iter, self.epoch = str(work_dir), 0, 0
        self.logger = SimpleNamespace(info=lambda message: None, warning=self.warned.append)
        info = {}
        self.message_hub = SimpleNamespace(
            runtime_info=info, update_info=info.__setitem__, get_info=info.__getitem__
        )
        self.full, self.seen = False, []

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        self.seen.append(sorted(path.name for path in Path(out_dir).glob("*.pth")))
        if self.full:
            raise UserError("no room")
        Path(out_dir, filename).write_text(filename)

    def files(self):
        return sorted(path.name for path in Path(self.work_dir).glob("*.pth"))


def started(work_dir, runner=None, **arguments):
    runner = runner or Runner(work_dir)
    hook = SafeCheckpointHook(by_epoch=False, **arguments)
    hook.before_train(runner)
    return hook, runner


def test_the_old_checkpoint_goes_when_the_new_one_is_there(tmp_path):
    hook, runner = started(tmp_path, interval=1, max_keep_ckpts=1)
    for runner.iter in range(3):
        hook.after_train_iter(runner, runner.iter)
        assert runner.files() == [f"iter_{runner.iter + 1}.pth"]
    assert runner.seen == [[], ["iter_1.pth"], ["iter_2.pth"]]  # it existed while the next one was written
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "iter_3.pth")

    runner.full, runner.iter = True, 3
    with pytest.raises(UserError):
        hook.after_train_iter(runner, 3)
    assert runner.files() == ["iter_3.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "iter_3.pth")
    assert sorted(os.listdir(tmp_path)) == ["iter_3.pth", "last_checkpoint"]


@pytest.mark.parametrize("keys", ["mIoU", ["mIoU", "aAcc"]])
def test_the_best_checkpoint_goes_when_a_better_one_is_there(tmp_path, keys):
    hook, runner = started(tmp_path, interval=10, save_best=keys, rule="greater")
    names = [keys] if isinstance(keys, str) else keys
    for runner.iter, score in ((1, 1.0), (2, 3.0), (3, 2.0)):
        runner.seen.clear()
        hook.after_val_epoch(runner, dict.fromkeys(names, score))
        best = min(runner.iter, 2)
        assert runner.files() == sorted(f"best_{name}_iter_{best}.pth" for name in names)
    runner.full, runner.iter = True, 4
    with pytest.raises(UserError):
        hook.after_val_epoch(runner, dict.fromkeys(names, 5.0))
    assert runner.files() == sorted(f"best_{name}_iter_2.pth" for name in names)


def test_a_metric_that_is_not_there_is_named(tmp_path):
    hook, runner = started(tmp_path, interval=10, save_best="mDice", rule="greater")
    with pytest.raises(UserError, match="save_best='mDice' is not among the metrics: mIoU"):
        hook.after_val_epoch(runner, dict(mIoU=1.0))


def test_the_best_checkpoint_of_the_folder_that_was_copied_from_stays(tmp_path):
    source, work = tmp_path / "source", tmp_path / "work"
    for folder in (source, work):
        folder.mkdir()
        (folder / "best_mIoU_iter_1.pth").write_text("")
    runner = Runner(work)
    runner.message_hub.runtime_info.update(best_ckpt=str(source / "best_mIoU_iter_1.pth"), best_score=1.0)
    hook, _ = started(work, runner, interval=10, save_best="mIoU", rule="greater")
    runner.iter = 2
    hook.after_val_epoch(runner, dict(mIoU=2.0))
    assert (source / "best_mIoU_iter_1.pth").exists()
    assert runner.files() == ["best_mIoU_iter_2.pth"]


def test_what_a_killed_writing_left_behind_is_cleared_away(tmp_path):
    (tmp_path / ".iter_4.pth.123-abcd.part").write_text("half a checkpoint")
    (tmp_path / ".notes.part").write_text("not ours")
    (tmp_path / "iter_2.pth").write_text("")
    started(tmp_path, interval=1)
    assert sorted(os.listdir(tmp_path)) == [".notes.part", "iter_2.pth"]


METRICS = ExactIoUMetric(iou_metrics=IOU_METRICS)
NAMES = list(METRICS._values(Scores(("a",), np.array([[1, 0]]))))


@pytest.mark.parametrize("name", [*NAMES, "night/mFscore", "auto"])
def test_more_is_better_for_every_score_of_the_metric_without_a_rule(tmp_path, name):
    hook, runner = started(tmp_path, interval=10, save_best=name)
    first = NAMES[0] if name == "auto" else name
    for runner.iter, score in ((1, 1.0), (2, 3.0), (3, 2.0)):
        hook.after_val_epoch(runner, {first: score, "other": 9 - score})
    assert runner.files() == [f"best_{first.replace('/', '_')}_iter_2.pth"]


@pytest.mark.parametrize("asked", ["mDice", "auto"])
def test_a_best_score_of_another_metric_is_not_compared_with(tmp_path, asked):
    """Continued with another save_best: 30 % Dice is no worse than 60 % IoU."""
    before, runner = started(tmp_path, interval=10, save_best="mIoU")
    runner.iter = 1
    before.after_val_epoch(runner, dict(mIoU=60.0, mDice=20.0))
    hook, _ = started(tmp_path, runner, interval=10, save_best=asked)
    runner.iter = 2
    hook.after_val_epoch(runner, dict(mDice=30.0, mIoU=50.0))
    assert runner.files() == ["best_mDice_iter_2.pth", "best_mIoU_iter_1.pth"]
    assert runner.message_hub.runtime_info["best_score"] == 30.0
    [told] = runner.warned
    assert "best_mIoU_iter_1.pth has the best score of another metric than save_best='mDice'" in told
    runner.iter = 3
    hook.after_val_epoch(runner, dict(mDice=25.0, mIoU=90.0))
    assert len(runner.warned) == 1 and runner.files()[0] == "best_mDice_iter_2.pth"
