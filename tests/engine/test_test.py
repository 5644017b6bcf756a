"""An evaluation: the file of its scores, what it reads, what it prints and what it logs."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

from danseg.engine.config.options import configure_test
from danseg.engine.runner import DansegRunner
from danseg.engine.test import test as evaluate
from danseg.errors import UserError
from danseg.evaluation import evaluate_folders
from danseg.label_maps.cityscapes_labels import LABELS
from danseg.label_maps.label_png import read_label_map
from danseg.visualization import page


@pytest.fixture
def checkpoint(tiny, tmp_path):
    """Random weights for the tiny config."""
    path = tmp_path / "random.pth"
    torch.manual_seed(0)  # some would give every pixel one class, which no label has
    torch.save({"state_dict": MODELS.build(tiny().model).state_dict(), "meta": {}}, path)
    return str(path)


@pytest.fixture(autouse=True)
def _mmseg_scope():
    init_default_scope("mmseg")


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
    config = configured(tiny(), tta=True)
    evaluate(config, checkpoint)
    [path] = Path(config.work_dir).glob("metrics_*.json")
    report = json.loads(path.read_text())
    assert report["tta"] and report["views"] == ["x0.75", "x0.75 flipped", "x1.0", "x1.0 flipped"]
    assert "million parameters, averaged over 4 views (test-time augmentation)\n" in capfd.readouterr().out


def test_a_checkpoint_of_another_network_stops_before_the_test(tiny, checkpoint, monkeypatch):
    monkeypatch.setattr(DansegRunner, "test", lambda self: pytest.fail("tested"))
    with pytest.raises(UserError, match=r"decode_head.* instead of"):
        evaluate(configured(tiny({"model.decode_head.channels": 8})), checkpoint)
    with pytest.raises(UserError, match=r"none\.pth does not exist"):
        evaluate(configured(tiny({"data_root": "none"})), "none.pth")


def test_weights_that_are_not_finite_are_not_tested(tiny, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(DansegRunner, "test", lambda self: pytest.fail("tested"))
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["decode_head.conv_seg.bias"][3] = float("nan")
    torch.save(content, tmp_path / "nan.pth")
    with pytest.raises(UserError, match=r"nan\.pth cannot be used, 1 weights hold NaN .*conv_seg\.bias"):
        evaluate(configured(tiny()), str(tmp_path / "nan.pth"))


@pytest.mark.slow
def test_several_data_sets_are_scored_together_and_alone(tiny, checkpoint, rendered_root, capfd):
    def reported(*folders):
        config = tiny()
        one = config.test_dataloader.dataset
        parts = [
            dict(one, data_prefix=dict(img_path=f"leftImg8bit/{name}", seg_map_path=f"gtFine/{name}"))
            for name in folders
        ]
        several = dict(type="ConcatDataset", datasets=parts)
        config.test_dataloader.dataset = several if len(parts) > 1 else parts[0]
        config.work_dir += "_".join(folders)
        scores = evaluate(configured(config), checkpoint)
        [path] = Path(config.work_dir).glob("metrics_*.json")
        return scores, json.loads(path.read_text())

    scores, report = reported("val", "train")
    said = capfd.readouterr().out
    assert "11 images of ConcatDataset (val 5, train 6)" in said
    assert "All 2 data sets together:" in said and "\nval:\n" in said.replace(" - mmengine - INFO - ", "\n")
    assert set(report["sets"]) == {"val", "train"}
    for name in ("val", "train"):
        alone, plain = reported(name)
        assert "sets" not in plain
        assert {key: scores[f"{name}/{key}"] for key in alone} == alone
        assert report["sets"][name]["mIoU"] == alone["mIoU"] == report[f"{name}/mIoU"]
        assert scores["mIoU"] != alone["mIoU"]
    assert report["mIoU"] == scores["mIoU"]


def test_the_file_of_scores_repeats_what_was_logged(tiny, checkpoint, tmp_path):
    """Also with classes that lack pixels counted as 0, and with two metrics."""
    config = tiny({"test_evaluator.nan_to_num": 0, "test_dataloader.dataset.indices": [0]})
    config.test_evaluator = [
        dict(config.test_evaluator, prefix="strict"),
        dict(config.test_evaluator, nan_to_num=None, prefix="lenient"),
    ]
    scores = evaluate(configured(config), checkpoint)
    [path] = (tmp_path / "work").glob("metrics_*.json")
    report = json.loads(path.read_text())
    assert scores["strict/mIoU"] < scores["lenient/mIoU"]
    for name in ("strict", "lenient"):
        assert report[f"{name}/mIoU"] == report[name]["mIoU"] == scores[f"{name}/mIoU"]


def named(checkpoint, classes, **meta):
    content = torch.load(checkpoint)
    content["meta"] = dict(dataset_meta=dict(classes=classes), **meta)
    torch.save(content, checkpoint)
    return checkpoint


def test_classes_in_another_order_than_the_checkpoints_are_refused(tiny, checkpoint, monkeypatch):
    monkeypatch.setattr(DansegRunner, "test", lambda self: pytest.fail("tested"))
    classes = DATASETS.get("CityscapesDataset").METAINFO["classes"]
    with pytest.raises(UserError, match=r"in another order \(bicycle, .*of the test set \(road, "):
        evaluate(configured(tiny()), named(checkpoint, classes[::-1]))


def test_other_classes_than_the_checkpoints_are_told(tiny, checkpoint, monkeypatch, capfd):
    monkeypatch.setattr(DansegRunner, "test", lambda self: {})
    evaluate(configured(tiny()), named(checkpoint, tuple("abcdefghijklmnopqrs")))
    assert "was trained with other classes (a, b, c, d, e and 14 more)" in "".join(capfd.readouterr())


@pytest.mark.parametrize("classes", [("car", "road"), None])
def test_pictures_and_files_of_chosen_classes(tiny, checkpoint, tmp_path, classes, monkeypatch):
    """A part of the classes, or all in another order: names and colours follow, ids in files stay."""
    record = DATASETS.get("CityscapesDataset").METAINFO
    classes = classes or record["classes"][::-1]
    colours = dict(zip(record["classes"], record["palette"], strict=True))
    published = {label.name: label.id for label in LABELS}
    drawn = []
    comparisons = importlib.import_module("danseg.visualization.comparison_figure")
    monkeypatch.setattr(
        comparisons, "comparison_figure", lambda *args, **kwargs: drawn.append(kwargs) or "figure"
    )
    monkeypatch.setattr(page, "save_figure", lambda *args: None)
    config = tiny({"num_classes": len(classes), "test_dataloader.dataset.metainfo": dict(classes=classes)})
    torch.save({"state_dict": MODELS.build(config.model).state_dict(), "meta": {}}, tmp_path / "few.pth")
    out = tmp_path / "out"
    scores = evaluate(
        configured(config, out=str(out), show_dir=str(tmp_path / "shown")), str(tmp_path / "few.pth")
    )
    assert len(drawn) == 5 and drawn[0]["classes"] == classes
    assert [tuple(one) for one in drawn[0]["palette"]] == [tuple(colours[name]) for name in classes]
    ids = {int(one) for path in out.glob("*.png") for one in np.unique(read_label_map(path))}
    assert ids <= {published[name] for name in classes} and ids
    [path] = (tmp_path / "work").glob("metrics_*.json")
    report = json.loads(path.read_text())
    assert tuple(report["classes"]) == classes and report["mIoU"] == scores["mIoU"]
    root = Path(config.data_root)
    again = evaluate_folders(out, root / "gtFine" / "val", "cityscapes", workers=1, classes=classes).scores
    assert again.as_dict().items() <= report.items()


def test_one_view_of_a_network_with_one_channel_scores_as_without_augmentation(tiny, tmp_path):
    two = {"test_dataloader.dataset.metainfo": dict(classes=("car", "road")), "num_classes": 2}
    head = {"model.decode_head.out_channels": 1, "model.decode_head.loss_decode.use_sigmoid": True}
    once = [
        dict(type="LoadImageFromFile"),
        dict(type="TestTimeAug", transforms=[[dict(type="LoadAnnotations")]]),
    ]
    once[1]["transforms"].append([dict(type="PackSegInputs")])
    config = tiny({**two, **head})
    model = MODELS.build(config.model)
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, tmp_path / "one.pth")
    found = []
    for augmented in (False, True):
        config = tiny({**two, **head})
        config.tta_pipeline = once
        found.append(evaluate(configured(config, tta=augmented), str(tmp_path / "one.pth")))
    assert found[0] == found[1] and 0 < found[0]["mIoU"] < 100
