"""An evaluation: the file of its scores, what it reads, what it prints and what it logs."""

import json
from pathlib import Path

import pytest
import torch

from danseg.engine.options import configure_test
from danseg.engine.runner import DansegRunner
from danseg.engine.test import test as evaluate
from danseg.errors import UserError


@pytest.fixture
def checkpoint(tiny, tmp_path):
    """Random weights for the tiny config."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    path = tmp_path / "random.pth"
    torch.save({"state_dict": MODELS.build(tiny().model).state_dict(), "meta": {}}, path)
    return str(path)


def configured(config, **options):
    configure_test(config, work_dir=config.work_dir, **options)
    return config


def test_scores_are_returned_and_written_unrounded(tiny, tmp_path, checkpoint, monkeypatch, capfd):
    loads, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda file, *a, **kw: loads.append(str(file)) or load(file, *a, **kw))
    config = configured(tiny())
    scores = evaluate(config, checkpoint)
    assert loads == [checkpoint]
    [path] = (tmp_path / "work").glob("metrics_*.json")
    report = json.loads(path.read_text())
    assert report["mIoU"] == scores["mIoU"] and report["classes"]["road"]["IoU"] is not None
    assert report["checkpoint"] == checkpoint and report["tta"] is False

    said, _, _ = capfd.readouterr().out.partition("Iter(test)")
    log = next((tmp_path / "work").glob("*/2*.log")).read_text()
    assert len(said.splitlines()) < 30
    for line in (
        "test: CityscapesDataset, 5 images",
        f"Evaluation of {Path(config.filename).stem}",
        "test data:   5 images of CityscapesDataset",
        f"weights:     {checkpoint}",
        "million parameters\n",
    ):
        assert line in said and line in log, line
    for line in ("System environment:", "Hooks will be executed", "default_hooks = dict("):
        assert line in log and line not in said, line
    assert "schedule" not in said


def test_augmentation_is_told(tiny, checkpoint, capfd):
    evaluate(configured(tiny(), tta=True), checkpoint)
    assert "million parameters, test-time augmentation\n" in capfd.readouterr().out


def test_a_checkpoint_of_another_network_stops_before_the_test(tiny, checkpoint, monkeypatch):
    monkeypatch.setattr(DansegRunner, "test", lambda self: pytest.fail("tested"))
    with pytest.raises(UserError, match=r"decode_head.* instead of"):
        evaluate(configured(tiny({"model.decode_head.channels": 8})), checkpoint)
    with pytest.raises(UserError, match=r"none\.pth does not exist"):
        evaluate(configured(tiny({"data_root": "none"})), "none.pth")
