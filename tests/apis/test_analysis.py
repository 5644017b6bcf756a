"""The analysis of a checkpoint: the test's own scores, and numbers equal to those of plain code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

from danseg import apis
from danseg.apis.analysis import analyse
from danseg.engine.config.config_file import load_config
from danseg.engine.config.options import configure_test
from danseg.engine.test import test as evaluate
from danseg.errors import UserError
from danseg.evaluation.boundary_iou import BoundaryIoU
from danseg.visualization import frame_miou

TINY = Path(__file__).resolve().parents[1] / "engine" / "tiny.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("analysis")


@pytest.fixture(scope="module")
def configured(folder, rendered_root):
    number = 0

    def configured(options=None, text="", tta=False):
        nonlocal number
        number += 1
        path = folder / f"analysed_{number}.py"  # mmengine distinguishes runs of one process by this name
        path.write_text(f'_base_ = ["{TINY}"]\n{text}')
        config = load_config(path, {"data_root": rendered_root, **(options or {})})
        configure_test(config, work_dir=str(folder / f"work_{number}"), tta=tta)
        return config

    return configured


@pytest.fixture(scope="module")
def checkpoint(folder):
    """Random weights whose predictions vary, and are sure now and then."""
    init_default_scope("mmseg")
    torch.manual_seed(0)
    model = MODELS.build(load_config(TINY).model)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.004 if "conv_seg" in name else 0.2)
    path = folder / "random.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {}}, path)
    return str(path)


@pytest.fixture(scope="module")
def found(configured, checkpoint):
    return analyse(configured(), checkpoint, worst=5)


@pytest.fixture(scope="module")
def predictions(configured, checkpoint):
    """Path, truth (255: ignored), labels and probabilities (C, H, W) in float64 of each image."""
    config = configured()
    model = apis.load_model(config, checkpoint, "cpu")
    dataset = DATASETS.build(config.test_dataloader.dataset)
    items = []
    for index in range(len(dataset)):
        data = dataset[index]
        with torch.no_grad():
            [sample] = model.test_step(dict(inputs=[data["inputs"]], data_samples=[data["data_samples"]]))
        probabilities = sample.seg_logits.data.double().softmax(0).numpy()
        truth, labels = (one.data[0].numpy() for one in (sample.gt_sem_seg, sample.pred_sem_seg))
        items.append((sample.img_path, truth, labels, probabilities))
    return items


def test_the_scores_are_those_of_the_test(found, configured, checkpoint):
    config = configured()
    means = evaluate(config, checkpoint)
    [path] = Path(config.work_dir).glob("metrics_*.json")
    written = json.loads(path.read_text())
    ours = {key: value for key, value in found.report.items() if key in written}
    assert ours | {"config": ""} == written | {"config": ""}
    assert found.scores.percent() == {name: means[name] for name in ("mIoU", "mAcc", "aAcc")}
    assert 0 < means["mIoU"] < 100 and found.images == 5


def test_the_worst_images_come_first_with_their_maps(found, predictions):
    expected = {
        path: frame_miou(truth, labels, found.scores.classes) for path, truth, labels, _ in predictions
    }
    assert [one.path for one in found.worst] == sorted(expected, key=expected.__getitem__)
    assert len(found.worst) == 5
    known = {path: (truth, labels) for path, truth, labels, _ in predictions}
    for one in found.worst:
        assert one.miou == pytest.approx(expected[one.path], abs=1e-15)
        truth, labels = one.maps()
        assert np.array_equal(np.where(truth == 19, 255, truth), known[one.path][0])
        assert np.array_equal(labels, known[one.path][1])
        assert found.picture(one.path).shape == (64, 128, 3)


def test_calibration_equals_plain_float64(found, predictions):
    confidences, correct = [], []
    for _, truth, labels, probabilities in predictions:
        labelled = truth != 255
        confidences.append(probabilities.max(0)[labelled])
        correct.append((truth == labels)[labelled])
    confidence, right = np.concatenate(confidences), np.concatenate(correct)
    bins = np.ceil(confidence * 15).clip(1)
    error = sum(
        abs(right[bins == number].mean() - confidence[bins == number].mean()) * (bins == number).mean()
        for number in np.unique(bins)
    )
    assert found.calibration.pixels.sum() == len(confidence)
    assert found.calibration.error == pytest.approx(error, abs=1e-5)
    assert found.calibration.overconfidence == pytest.approx(confidence.mean() - right.mean(), abs=1e-6)
    assert error > 0.05 and len(np.unique(bins)) > 5


def test_boundary_iou_is_of_the_same_pixels(found, predictions):
    expected = BoundaryIoU(19)
    for _, truth, labels, _ in predictions:
        expected.add(np.where(truth == 255, 19, truth), labels)
    assert np.array_equal(found.boundary.counts, expected.counts)
    assert np.array_equal(np.isnan(found.boundary.scores), np.isnan(found.scores.iou))


def test_memory_is_of_counts_and_of_the_worst_alone(configured, checkpoint, found):
    few = analyse(configured(), checkpoint, worst=2, bins=3, boundary=0.1)
    assert [one.path for one in few.worst] == [one.path for one in found.worst[:2]]
    assert few.calibration.bins == 3 and few.boundary.share == 0.1


def test_absent_classes_have_the_evaluators_score(configured, checkpoint):
    options = {"test_evaluator.nan_to_num": 0.25, "test_dataloader.dataset.indices": [0]}
    found = analyse(configured(options), checkpoint)
    absent = found.scores.label_pixels + found.scores.predicted_pixels == 0
    assert absent.any() and (found.boundary.scores[absent] == 0.25).all()
    assert found.images == 1


def test_augmentation_has_the_scores_of_the_test_and_sound_confidences(configured, checkpoint):
    config = configured(tta=True)
    means = evaluate(config, checkpoint)
    whole = analyse(configured(tta=True), checkpoint, worst=1)
    assert whole.scores.percent() == {name: means[name] for name in ("mIoU", "mAcc", "aAcc")}
    assert whole.report["tta"] and len(whole.report["views"]) == 4 and len(whole.worst) == 1
    # The confidence is the averaged probability of the label, from mmseg's own average in float64.
    config = configured(tta=True)
    model = MODELS.build({**config.model, "module": apis.load_model(configured(), checkpoint, "cpu")}).eval()
    dataset, sums = DATASETS.build(config.test_dataloader.dataset), np.zeros(2)
    for index in range(len(dataset)):
        data = dataset[index]
        batch = {key: [[one] for one in value] for key, value in data.items()}
        with torch.no_grad():
            [sample] = model.test_step(batch)
        chances = sample.seg_logits.data.double().softmax(0).max(0).values[sample.gt_sem_seg.data[0] != 255]
        sums += float(chances.sum()), chances.numel()
    assert whole.calibration.confidence_sums.sum() / whole.calibration.pixels.sum() == pytest.approx(
        sums[0] / sums[1], abs=1e-5
    )
    narrow = analyse(configured(tta=True), checkpoint, precision="bfloat16", device="cpu", worst=0)
    assert narrow.scores.pixel_acc == pytest.approx(whole.scores.pixel_acc, abs=0.05)


def test_precision_is_told_and_taken(configured, checkpoint, found):
    narrow = analyse(configured(), checkpoint, precision="bfloat16", device="cpu", worst=0)
    assert narrow.worst == []
    assert narrow.report["precision"] == "bfloat16"
    assert narrow.calibration.error != found.calibration.error
    assert narrow.scores.pixel_acc == pytest.approx(found.scores.pixel_acc, abs=0.05)


@pytest.mark.parametrize(
    ("options", "arguments", "words"),
    [
        ({"test_evaluator": dict(type="IoUMetric", iou_metrics=["mIoU"])}, {}, "IoUMetric"),
        ({"model.decode_head.channels": 8}, {}, "instead of"),
        ({"model.decode_head.num_classes": 5, "model.auxiliary_head.num_classes": 5}, {}, "19"),
        ({}, dict(device="cuda:7"), "cuda:7"),
        ({}, dict(precision="float16"), "float16"),
        ({"test_dataloader.dataset.data_prefix.seg_map_path": "gtFine/test"}, {}, "gtFine"),
    ],
)
def test_bad_input_is_one_message(options, arguments, words, configured, checkpoint):
    with pytest.raises(UserError, match=words):
        analyse(configured(options), checkpoint, **arguments)


def test_logits_that_overflow_are_named(configured, checkpoint, folder):
    content = torch.load(checkpoint)
    content["state_dict"]["decode_head.conv_seg.weight"].fill_(3e38)
    torch.save(content, folder / "huge.pth")
    with pytest.raises(UserError, match=r"\.png: the network's logits are not finite"):
        analyse(configured(), str(folder / "huge.pth"))
