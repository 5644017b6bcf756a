"""The scores of a training's last validation: in a file, and made up for where the validation was cut off."""

import json
from pathlib import Path

import pytest
from mmengine.runner import ValLoop

from danseg.engine.hooks.validation_scores import VALIDATION
from danseg.engine.runner import DansegRunner
from danseg.engine.train import results, train
from danseg.engine.validation_record import RECORD, read_record

TINY = {"train_cfg.max_iters": 2, "train_cfg.val_interval": 2, "default_hooks.checkpoint.interval": 2}


def written(work: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(work.glob(f"*/{VALIDATION}"))]


def logged(work: Path) -> list[float]:
    """Every mIoU among the scalars."""
    lines = [json.loads(line) for path in work.glob("*/vis_data/scalars.json") for line in path.open()]
    return [line["mIoU"] for line in lines if "mIoU" in line]


@pytest.mark.slow
def test_scores_of_every_class_and_of_a_validation_that_was_cut_off(tiny, tmp_path, monkeypatch):
    work, cut = tmp_path / "work", tmp_path / "cut"
    seeded = {**TINY, "randomness": {"seed": 0}}
    runner = train(tiny(seeded), log=lambda message: None)
    [scores] = written(work)
    [metric] = runner.val_evaluator.metrics
    assert scores["iteration"] == 2
    assert str(next(work.glob(f"*/{VALIDATION}"))) in results(runner)
    assert str(work / RECORD) in results(runner)
    assert [(one["iteration"], one["mIoU"]) for one in read_record(work)] == [(2, scores["mIoU"])]
    assert [scores["mIoU"]] == logged(work) == [metric.scores.mean_iou * 100]
    assert {name: one["IoU"] for name, one in scores["classes"].items()} == {
        name: None if iou != iou else iou * 100
        for name, iou in zip(metric.scores.classes, metric.scores.iou, strict=True)
    }

    def killed(loop):
        raise InterruptedError

    # As if it had been killed after its last checkpoint, before the validation.
    config = tiny(seeded)
    config.work_dir = str(cut)
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(ValLoop, "run", killed)
        train(config, log=lambda message: None)
    assert (cut / "iter_2.pth").is_file() and written(cut) == logged(cut) == []
    config = tiny(seeded)
    config.work_dir = str(cut)
    train(config, resume="auto", log=lambda message: None)
    assert written(cut) == [scores] and logged(cut) == [scores["mIoU"]]
    assert (cut / "best_mIoU_iter_2.pth").is_file()  # the other hooks have seen that validation


@pytest.mark.slow
def test_a_training_that_goes_on_is_not_validated_before(tiny, tmp_path):
    train(tiny(TINY), log=lambda message: None)
    train(tiny({**TINY, "train_cfg.max_iters": 3}), resume="auto", log=lambda message: None)
    assert [one["iteration"] for one in written(tmp_path / "work")] == [2, 3]
    assert len(logged(tmp_path / "work")) == 2


@pytest.mark.slow
def test_a_validation_alone_writes_nothing(tiny, tmp_path):
    DansegRunner.from_cfg(tiny({**TINY, "default_hooks.checkpoint.save_best": None})).val()
    assert written(tmp_path / "work") == []
