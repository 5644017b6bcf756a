"""Early stopping counts on when a training is resumed, as if it had not been interrupted."""

import json

import pytest
from mmengine.hooks import EarlyStoppingHook

from child_process import ROOT
from danseg.engine.hooks import SafeCheckpointHook, SafeEarlyStoppingHook, ValidationScoresHook
from danseg.errors import UserError
from launch import launch
from small_run import SmallRunner

TINY = ROOT / "tests" / "engine" / "tiny.py"

# By number of iterations: the best at 3, then none that is better by a point.
SCORES = [{"mIoU": score} for score in (0, 10, 20, 30, 30.5, 29, 30.9, 50, 60)]


def run(folder, scores=SCORES, stopping=SafeEarlyStoppingHook, start=None, saved=100, length=8, **arguments):
    """Train, validating after each iteration, from a checkpoint of an iteration if ``start`` names one."""
    hooks = [
        stopping(monitor="mIoU", min_delta=1, **{"patience": 3, **arguments}),
        SafeCheckpointHook(interval=saved, by_epoch=False),
        ValidationScoresHook(),
    ]
    runner = SmallRunner(folder, hooks, scores, max_iters=length, val_interval=1)
    for hook in hooks:
        hook.before_run(runner)
    if start is not None:
        runner.resume(folder / f"iter_{start}.pth")
    runner.train()
    return runner


def test_it_ends_with_a_checkpoint_of_its_last_iteration(tmp_path):
    runner = run(tmp_path)
    assert runner.validated == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["iter_6.pth"]
    assert any("stopped early, after iteration 6" in said for said in runner.said)


@pytest.mark.parametrize("start", range(1, 7))
def test_a_resumed_training_ends_where_it_would_have_ended(tmp_path, start):
    run(tmp_path, saved=1, length=start, patience=100)
    runner = run(tmp_path, start=start, saved=1)
    assert runner.iter == 6 and runner.validated == list(range(start + 1, 7))


def test_mmengines_hook_would_begin_to_count_anew(tmp_path):
    run(tmp_path, saved=1, length=5, patience=100)
    assert run(tmp_path, start=5, saved=1, stopping=EarlyStoppingHook).iter == 8


def test_a_training_that_had_stopped_stays_so_and_writes_nothing(tmp_path):
    run(tmp_path)
    before = (tmp_path / "iter_6.pth").stat().st_mtime_ns
    runner = run(tmp_path, start=6)
    assert (runner.iter, runner.validated) == (6, [])
    assert (tmp_path / "iter_6.pth").stat().st_mtime_ns == before


def test_a_validation_that_is_made_up_for_counts_once(tmp_path):
    run(tmp_path, saved=1, length=5, patience=100)
    record = tmp_path / "validations.json"
    record.write_text(record.read_text().replace('"iteration": 5', '"iteration": 99'))
    runner = run(tmp_path, start=5, saved=1)
    assert (runner.validated, runner.iter) == ([5, 6], 6)


def test_where_earlier_scores_are_not_known_that_is_said(tmp_path):
    run(tmp_path, saved=1, length=5, patience=100)
    (tmp_path / "validations.json").unlink()
    runner = run(tmp_path, start=5, saved=1)
    assert any("early stopping counts from iteration 5" in said for said in runner.said)


def test_a_score_that_is_no_number_ends_it_now_and_when_resumed(tmp_path):
    scores = [*SCORES[:2], {"mIoU": float("nan")}, *SCORES[3:]]
    assert run(tmp_path, scores).iter == 2
    assert run(tmp_path, scores, start=2).iter == 2


def test_a_score_that_no_validation_gives_is_refused(tmp_path):
    with pytest.raises(UserError, match="monitor='mIoU' is not among the scores .*: val/mIoU"):
        run(tmp_path, [{"val/mIoU": 1.0}] * 9)


@pytest.mark.slow
def test_two_processes_stop_at_the_same_validation(tmp_path, rendered_root):
    """Both leave the loop, though one alone computes the scores: else the other would wait for it."""
    config = tmp_path / "stopping.py"
    config.write_text(
        f"_base_ = {str(TINY)!r}\ndata_root = {rendered_root!r}\n"
        "train_cfg = dict(max_iters=9, val_interval=1)\n"
        'param_scheduler = [dict(type="PolyLR", eta_min=1e-4, begin=0, end=9, by_epoch=False)]\n'
        'custom_hooks = [dict(type="EarlyStoppingHook", monitor="mIoU", min_delta=100, patience=2)]\n'
        "default_hooks = dict(checkpoint=dict(interval=9))\n"
    )
    work = tmp_path / "work"
    done = launch(2, "train", config, "--work-dir", work, "--seed", 0)
    assert done.returncode == 0, done.stderr
    validated = [one["iteration"] for one in json.loads((work / "validations.json").read_text())]
    assert validated == [1, 2, 3] and (work / "last_checkpoint").read_text().endswith("iter_3.pth")
    assert done.stdout.count("stopped early, after iteration 3") == 1
