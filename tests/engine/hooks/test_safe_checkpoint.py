"""No old checkpoint goes before the new one is whole; best and last are true after a kill at any moment."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.hooks import SafeCheckpointHook, ValidationScoresHook
from danseg.engine.resuming import find_resumable
from danseg.engine.validation_record import RECORD, read_record
from danseg.engine.work_dir import checkpoint_folders, clear_leftovers, prepare_folders
from danseg.errors import UserError
from danseg.evaluation.confusion import Scores
from danseg.evaluation.metric import IOU_METRICS, ExactIoUMetric
from danseg.io import files
from small_run import SmallRunner

# After so many iterations. A higher mIoU is better, a lower loss.
SCORES = [
    {"mIoU": mean, "loss": loss}
    for mean, loss in zip([0, 0.9, 1.15, 1.1, 1.4, 1.3, 1.2], [9, 5, 4, 4.5, 3, 2, 2.5], strict=True)
]


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    """Nobody cuts the power."""
    monkeypatch.setattr(files, "_sync", lambda path: None)


def run(work: Path, hook: dict, loop: dict, resume: bool = False, scores=SCORES) -> SmallRunner:
    """Train as ``danseg.engine.train.train`` does, resumed where there is something to resume from."""
    work.mkdir(exist_ok=True)
    default_hooks = {"checkpoint": {"type": "SafeCheckpointHook", **hook}}
    config = Config({"work_dir": str(work), "default_hooks": default_hooks})
    found = None
    for folder in checkpoint_folders(config):
        folder.mkdir(exist_ok=True, parents=True)
        clear_leftovers(folder)
        found = (resume and find_resumable(folder, print)) or found
    prepare_folders(config, found, print, refuse=not resume)
    runner = SmallRunner(work, [SafeCheckpointHook(**hook), ValidationScoresHook()], scores, **loop)
    if found:
        runner.resume(found[0])
    runner.train()
    return runner


class Dead(BaseException):
    """Nothing that a process does after its death changes a file, whatever it catches."""


def killed(step: int, train: Callable[[], object]) -> bool:
    """Train, but die when a name is about to be changed for the ``step``-th time; whether it came to that."""
    left = step

    def dying(change: Callable) -> Callable:
        def changed(path, *arguments, **keywords):
            nonlocal left
            left -= change is mkdir or os.path.lexists(path)
            if left < 0:
                raise Dead
            return change(path, *arguments, **keywords)

        return changed

    mkdir = os.mkdir
    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "rename", "remove", "unlink", "mkdir"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            train()
        except Dead:
            return True
    return False


def state(work: Path) -> dict[str, object]:
    """The files of a training that has ended, with what they say."""
    found = {}
    for path in sorted(work.parent.rglob("*")):
        name = str(path.relative_to(work.parent)).replace(work.name, "WORK")
        if path.is_dir() or "earlier_" in name:
            continue
        if path.suffix == ".pth":
            content = read_checkpoint(path)
            info = content["message_hub"]["runtime_info"] if "best" in name else {}
            scores = {key: value for key, value in info.items() if key.startswith("best_score")}
            found[name] = (int(content["state_dict"]["weight"]), scores)
        else:
            found[name] = path.read_text().replace(str(work.parent), "").replace(work.name, "WORK")
    return found


ITERATIONS = {"max_iters": 6, "val_interval": 2}
WAYS = {
    "keep 1": (dict(by_epoch=False, interval=1, max_keep_ckpts=1, save_best="mIoU"), ITERATIONS),
    "keep 2 of every third": (
        dict(by_epoch=False, interval=3, max_keep_ckpts=2, save_best="loss", rule="less"),
        {"max_iters": 6, "val_interval": 1},
    ),
    "keep all": (dict(by_epoch=False, interval=2, save_best=["mIoU", "loss"]), ITERATIONS),
    "auto, elsewhere": (
        dict(by_epoch=False, interval=2, max_keep_ckpts=2, save_best="auto", out_dir="elsewhere"),
        ITERATIONS,
    ),
    "epochs": (dict(interval=1, max_keep_ckpts=1, save_best="mIoU"), {"max_epochs": 3, "val_interval": 1}),
}


@pytest.mark.parametrize("way", WAYS)
def test_killed_at_any_change_of_a_file_and_resumed_it_is_as_if_it_had_not_been(tmp_path, way):
    hook, loop = WAYS[way]

    def folder(name: object) -> Path:
        root = tmp_path / str(name)
        root.mkdir()
        if "out_dir" in hook:
            hook["out_dir"] = str(root / "elsewhere")
        return root / "work"

    straight = folder("straight")
    run(straight, hook, loop)
    wanted = state(straight)
    best = {name for name in wanted if "best_" in name}
    assert len(best) == (2 if way == "keep all" else 1) and all(wanted[name][1] for name in best)

    step = 0
    while True:
        work = folder(step)
        if not killed(step, lambda: run(work, hook, loop)):  # noqa: B023
            break
        begun = list(work.parent.rglob("[ie]*_*.pth"))
        for _ in range(2):  # and again while it is resumed
            killed(step, lambda: run(work, hook, loop, resume=True))  # noqa: B023
        run(work, hook, loop, resume=True)
        assert state(work) == wanted, step
        # What was there before the first checkpoint belongs to a training that cannot be continued.
        assert not (begun and list(work.parent.rglob("earlier_*"))), step
        step += 1
    assert step > 12


class Still(SmallRunner):
    """A runner whose place a test sets, and whose disk can be full."""

    iter = epoch = 0

    def __init__(self, work_dir: Path) -> None:
        super().__init__(work_dir, [], SCORES, max_iters=100)
        self.full, self.seen = False, []

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        self.seen.append(self.files())
        if self.full:
            raise UserError("no room")
        super().save_checkpoint(out_dir, filename, *args, **kwargs)

    def files(self):
        return sorted(path.name for path in Path(self.work_dir).glob("*.pth"))


def started(work_dir, runner=None, **arguments):
    runner = runner or Still(work_dir)
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
    assert sorted(os.listdir(tmp_path)) == ["iter_3.pth", "last_checkpoint", "log"]


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


def test_a_checkpoint_is_written_once(tmp_path, monkeypatch):
    """mmengine writes it again after a new best."""
    writes, save = [], SmallRunner.save_checkpoint

    def saved(self, out_dir, filename, *args, **kwargs):
        writes.append(filename)
        save(self, out_dir, filename, *args, **kwargs)

    monkeypatch.setattr(SmallRunner, "save_checkpoint", saved)
    run(tmp_path / "work", *WAYS["keep 1"])
    best = ["best_mIoU_iter_2.pth", "best_mIoU_iter_4.pth"]
    assert sorted(writes) == [*best, *(f"iter_{step}.pth" for step in range(1, 7))]


def test_a_metric_that_is_not_there_is_named(tmp_path):
    hook, runner = started(tmp_path, interval=10, save_best="mDice", rule="greater")
    with pytest.raises(UserError, match="save_best='mDice' is not among the metrics: mIoU"):
        hook.after_val_epoch(runner, dict(mIoU=1.0))


def with_best(folder, score=1.0):
    """A folder with the best checkpoint of a validation after the first iteration, and the runner's state."""
    folder.mkdir()
    hook, runner = started(folder, interval=10, save_best="mIoU")
    runner.iter = 1
    hook.after_val_epoch(runner, dict(mIoU=score))
    return runner


@pytest.mark.parametrize("copied", [True, False])
def test_the_best_checkpoint_of_the_folder_that_was_copied_from_stays(tmp_path, copied):
    source, work = tmp_path / "source", tmp_path / "work"
    info = with_best(source, 3.0).message_hub.runtime_info
    work.mkdir()
    if copied:
        (work / "best_mIoU_iter_1.pth").write_bytes((source / "best_mIoU_iter_1.pth").read_bytes())
    runner = Still(work)
    runner.message_hub.runtime_info.update(info)
    runner.iter = 1
    hook, _ = started(work, runner, interval=10, save_best="mIoU")
    runner.iter = 2
    hook.after_val_epoch(runner, dict(mIoU=2.0))
    assert runner.files() == ["best_mIoU_iter_1.pth" if copied else "best_mIoU_iter_2.pth"]
    hook.after_val_epoch(runner, dict(mIoU=4.0))
    assert (source / "best_mIoU_iter_1.pth").exists() and runner.files() == ["best_mIoU_iter_2.pth"]


@pytest.mark.parametrize(("rule", "best"), [("greater", 2), ("less", 1)])
def test_of_several_best_checkpoints_the_best_is_kept(tmp_path, rule, best):
    """As if trainings had been killed before they deleted the others."""
    runner, hidden = Still(tmp_path), []
    for step, score in ((1, 1.0), (2, 2.0), (3, 1.5)):
        one = Still(tmp_path)
        hook, _ = started(tmp_path, one, interval=10, save_best="loss", rule=rule)
        one.iter = step
        hook.after_val_epoch(one, dict(loss=score))
        hidden.append((tmp_path / f"best_loss_iter_{step}.pth").rename(tmp_path / f"hidden_{step}"))
    for step, path in enumerate(hidden, 1):
        path.rename(tmp_path / f"best_loss_iter_{step}.pth")
    runner.iter = 3
    hook, _ = started(tmp_path, runner, interval=10, save_best="loss", rule=rule)
    assert runner.files() == [f"best_loss_iter_{best}.pth"]
    assert hook.best_ckpt_path == str(tmp_path / runner.files()[0])
    hook.after_val_epoch(runner, dict(loss=1.2))  # neither the lowest nor the highest
    assert runner.files() == [f"best_loss_iter_{best}.pth"]


def test_a_damaged_best_checkpoint_is_told_of_and_not_compared_with(tmp_path):
    runner = with_best(tmp_path / "work")
    best = tmp_path / "work" / "best_mIoU_iter_1.pth"
    best.write_bytes(best.read_bytes()[:300])
    hook, _ = started(tmp_path / "work", runner, interval=10, save_best="mIoU")
    assert any("best_mIoU_iter_1.pth is cut off" in line for line in runner.said)
    assert best.is_file() and "best_score" not in runner.message_hub.runtime_info


METRICS = ExactIoUMetric(iou_metrics=IOU_METRICS)
METRIC_NAMES = list(METRICS._values(Scores(("a",), np.array([[1, 0]]))))


@pytest.mark.parametrize("name", [*METRIC_NAMES, "night/mFscore", "auto"])
def test_more_is_better_for_every_score_of_the_metric_without_a_rule(tmp_path, name):
    hook, runner = started(tmp_path, interval=10, save_best=name)
    first = METRIC_NAMES[0] if name == "auto" else name
    for runner.iter, score in ((1, 1.0), (2, 3.0), (3, 2.0)):
        hook.after_val_epoch(runner, {first: score, "other": 9 - score})
    assert runner.files() == [f"best_{first.replace('/', '_')}_iter_2.pth"]


@pytest.mark.parametrize("asked", ["mDice", "auto"])
def test_a_best_score_of_another_metric_is_not_compared_with(tmp_path, asked):
    """Continued with another save_best: 30 % Dice is no worse than 60 % IoU."""
    runner = with_best(tmp_path / "work", 60.0)
    hook, _ = started(tmp_path / "work", runner, interval=10, save_best=asked)
    runner.iter = 2
    hook.after_val_epoch(runner, dict(mDice=30.0, mIoU=50.0))
    assert runner.files() == ["best_mDice_iter_2.pth", "best_mIoU_iter_1.pth"]
    assert runner.message_hub.runtime_info["best_score"] == 30.0
    [told] = [line for line in runner.said if "another metric" in line]
    assert "best_mIoU_iter_1.pth has the best score of another metric than save_best=['mDice']" in told
    runner.iter = 3
    hook.after_val_epoch(runner, dict(mDice=25.0, mIoU=90.0))
    assert runner.files()[0] == "best_mDice_iter_2.pth"


@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_checkpoint_whose_turn_has_not_come_is_written_once_and_counts(tmp_path, by_epoch):
    hook, runner = started(tmp_path, interval=4, max_keep_ckpts=2)
    hook.by_epoch = by_epoch
    hook.filename_tmpl = "epoch_{}.pth" if by_epoch else "state_{}.pth"
    for _ in range(2):
        hook.save_now(runner, {"epoch": 0, "iter": 3})
    assert len(runner.seen) == 1
    name = "iter_3.pth" if by_epoch else "state_3.pth"
    assert runner.files() == [name]
    assert read_checkpoint(tmp_path / name)["meta"] == {"epoch": 0, "iter": 3}
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / name)

    runner.iter = 3
    again, _ = started(tmp_path, runner, interval=4, max_keep_ckpts=2)
    if by_epoch:
        again.save_now(runner, {"epoch": 0, "iter": 3})  # it was resumed from that
        assert len(runner.seen) == 1
    for step in (1, 2):
        hook._save_checkpoint_with_step(runner, step, {"epoch": step, "iter": 4 * step})
    assert runner.files() == sorted(hook.filename_tmpl.format(step) for step in (1, 2))


def test_a_checkpoint_of_a_signal_takes_part_in_the_rotation_of_epochs(tmp_path):
    """Epochs of two iterations: iter_3 lies between the first and the second."""
    hook = dict(interval=1, max_keep_ckpts=2)
    epochs = {"max_epochs": 2, "val_interval": 9}
    run(tmp_path / "work", hook, epochs)
    work = tmp_path / "work"
    (work / "epoch_2.pth").rename(work / "iter_3.pth")
    runner = Still(work)
    runner.train_loop = SmallRunner(work, [], SCORES, max_epochs=3).train_loop
    runner.iter, runner.epoch = 4, 2
    kept = SafeCheckpointHook(**hook)
    kept.before_train(runner)
    assert kept._kept == ["epoch_1.pth", "iter_3.pth"]
    kept.after_train_epoch(runner)
    assert runner.files() == ["epoch_3.pth", "iter_3.pth"]


def test_epochs_that_were_shorter_are_no_newer_ones(tmp_path):
    work, hook = tmp_path / "work", dict(interval=1, max_keep_ckpts=2)
    run(work, hook, {"max_epochs": 2, "val_interval": 9})
    runner = Still(work)
    runner.train_loop = SmallRunner(work, [], SCORES, max_epochs=3).train_loop
    runner.iter = runner.epoch = 2  # of one iteration each
    kept = SafeCheckpointHook(**hook)
    kept.before_train(runner)
    assert kept.last_ckpt == str(work / "epoch_2.pth") and kept._kept == ["epoch_1.pth", "epoch_2.pth"]


def test_a_validation_is_made_up_for_only_where_it_is_missing(tmp_path):
    work, (hook, loop) = tmp_path / "work", WAYS["keep all"]
    assert run(work, hook, loop).validated == [2, 4, 6]
    record = read_record(work)
    assert record == [{"iteration": step, **SCORES[step]} for step in (2, 4, 6)]
    assert run(work, hook, loop, resume=True).validated == []
    assert run(work, hook, {**loop, "max_iters": 7}, resume=True, scores=[*SCORES, SCORES[0]]).validated == [
        7
    ]

    # A record that is gone, and a best checkpoint that is gone.
    (work / "iter_7.pth").unlink()
    (work / RECORD).unlink()
    assert run(work, hook, loop, resume=True).validated == [6]
    for path in work.glob("best_*.pth"):
        path.unlink()
    assert run(work, hook, loop, resume=True).validated == [6]
    assert sorted(path.name for path in work.glob("best_*")) == [
        "best_loss_iter_6.pth",
        "best_mIoU_iter_6.pth",
    ]


def test_the_score_of_a_validation_that_is_no_number_is_recorded(tmp_path):
    scores = [{"mIoU": float("nan")}] * 3
    run(tmp_path / "work", WAYS["keep 1"][0], {"max_iters": 2, "val_interval": 2}, scores=scores)
    assert read_record(tmp_path / "work") == [{"iteration": 2, "mIoU": None}]
    assert (
        run(tmp_path / "work", WAYS["keep 1"][0], {"max_iters": 2, "val_interval": 2}, True, scores).validated
        == []
    )
