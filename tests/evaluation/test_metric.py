"""The metric of the configs: exactness, agreement with mmseg, two processes, bad input."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample
from PIL import Image

from child_process import environment
from danseg.errors import UserError
from danseg.evaluation import ExactIoUMetric
from danseg.evaluation.metric import IOU_METRICS
from danseg.label_maps.id_formats import id_format
from danseg.label_maps.label_png import read_label_map

CLASSES = ("road", "car", "sky", "tree")
RANK_SCRIPT = Path(__file__).with_name("metric_rank.py")


def make_metric(classes=CLASSES, **kwargs) -> ExactIoUMetric:
    metric = METRICS.build(dict(type="ExactIoUMetric", **kwargs))
    metric.dataset_meta = dict(classes=classes)
    return metric


def make_sample(prediction, label=None, name: str = "a") -> dict:
    sample = dict(
        pred_sem_seg=dict(data=torch.as_tensor(prediction)[None]),
        img_path=f"images/{name}.png",
        seg_map_path=f"labels/{name}.png",
    )
    if label is not None:
        sample["gt_sem_seg"] = dict(data=torch.as_tensor(label)[None])
    return sample


def random_samples(count: int, classes: int = 4, device: str | torch.device = "cpu") -> list[dict]:
    rng = np.random.default_rng(0)
    samples = []
    for i in range(count):
        prediction, label = rng.integers(0, classes, (2, 24, 30 + i))
        label[rng.random(label.shape) < 0.1] = 255
        on_device = (torch.from_numpy(ids).to(device) for ids in (prediction, label))
        samples.append(make_sample(*on_device, str(i)))
    return samples


@pytest.mark.parametrize("names", [["mIoU"], "mDice", ["mIoU", "mFscore"]])
def test_agrees_with_mmseg_up_to_its_rounding(names, device):
    theirs = IoUMetric(iou_metrics=names, prefix="x")
    theirs.dataset_meta = dict(classes=CLASSES)
    ours = make_metric(iou_metrics=names, prefix="x")
    samples = random_samples(3, device=device)
    for metric in (theirs, ours):
        metric.process(None, samples)
    expected, values = theirs.evaluate(3), ours.evaluate(3)
    assert set(values) == set(expected)
    for name, value in values.items():
        assert round(value, 2) == pytest.approx(float(expected[name]), abs=1e-5), name
    assert ours.prefix == "x" and "x/aAcc" in values


def test_it_counts_where_the_model_computed(device):
    samples = random_samples(2)
    for sample in samples:
        for field in ("pred_sem_seg", "gt_sem_seg"):
            sample[field]["data"] = sample[field]["data"].to(device)
    ours, plain = make_metric(), make_metric()
    ours.process(None, samples)
    plain.process(None, random_samples(2))
    assert all(isinstance(part, np.ndarray) for result in ours.results for part in result["pairs"])
    assert ours.evaluate(2) == plain.evaluate(2)


def test_values_are_unrounded_and_scores_per_class():
    metric = make_metric()
    # Row 0 is right, and one third of row 1.
    metric.process(None, [make_sample([[0, 0, 0], [1, 0, 0]], [[0, 0, 0], [1, 1, 1]])])
    values = metric.evaluate(1)
    assert values["aAcc"] == 4 / 6 * 100
    assert values["mIoU"] == (3 / 5 + 1 / 3) / 2 * 100
    assert values["mAcc"] == (1 + 1 / 3) / 2 * 100
    np.testing.assert_array_equal(metric.scores.iou, [3 / 5, 1 / 3, np.nan, np.nan])
    assert metric.scores.classes == CLASSES
    assert metric.results == []


def test_through_the_evaluator_with_data_samples():
    evaluator = Evaluator(dict(type="mmseg.ExactIoUMetric"))
    evaluator.dataset_meta = dict(classes=CLASSES)
    plain = random_samples(2)
    for sample in plain:
        wrapped = SegDataSample(metainfo=dict(img_path=sample["img_path"]))
        wrapped.set_data(
            dict(
                pred_sem_seg=_pixel_data(sample["pred_sem_seg"]), gt_sem_seg=_pixel_data(sample["gt_sem_seg"])
            )
        )
        evaluator.process([wrapped])
    metric = make_metric()
    metric.process(None, plain)
    assert evaluator.evaluate(2) == metric.evaluate(2)


def _pixel_data(field: dict):
    from mmengine.structures import PixelData

    return PixelData(data=field["data"])


def test_validations_do_not_add_up():
    metric = make_metric()
    first = random_samples(2)
    metric.process(None, first)
    expected = metric.evaluate(2)
    metric.process(None, first)
    assert metric.evaluate(2) == expected


def test_sums_above_32_bits_are_exact():
    metric = make_metric()
    # Positions of a 5x5 table whose last row is ignored pixels: label 0 as class 0, label 0 as class 1.
    image = dict(image="images/a.png", pairs=(np.array([0, 1]), np.array([2**31 - 1, 1])))
    metric.compute_metrics([image] * 3)
    assert metric.scores.confusion[0, 0] == 3 * (2**31 - 1)
    assert metric.scores.iou[0] == (2**31 - 1) / 2**31


def test_ignore_index_nan_to_num_and_float_predictions():
    metric = make_metric(ignore_index=-1, nan_to_num=0)
    metric.process(None, [make_sample(np.array([[0.0, 1.0, 1.0]]), [[0, 1, -1]])])
    assert metric.evaluate(1) == {"aAcc": 100.0, "mIoU": 50.0, "mAcc": 50.0}


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path):
    spec = importlib.util.spec_from_file_location("metric_rank", RANK_SCRIPT)
    metric_rank = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(metric_rank)

    ranks = [
        subprocess.Popen(
            [sys.executable, str(RANK_SCRIPT), str(rank), "2", str(tmp_path)],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    try:
        for process in ranks:
            output = process.communicate(timeout=300)[0]
            assert process.returncode == 0, output.decode()
    finally:
        for process in ranks:
            process.kill()

    single = metric_rank.evaluate(tmp_path / "single", 1, "gpu")
    assert single["processed"] == 5
    assert metric_rank.RUNS
    for name in metric_rank.RUNS:
        first, second = (json.loads((tmp_path / name / f"rank_{rank}.json").read_text()) for rank in range(2))
        assert first["processed"] == second["processed"] == 3  # one image is padding
        assert first["confusion"] == single["confusion"]
        assert first["values"] == second["values"] == single["values"]
        written = sorted(path.name for path in (tmp_path / name / "out" / "deep").iterdir())
        assert written == [f"{i}.png" for i in range(5)]
    assert not (tmp_path / ".dist_test").exists()


@pytest.mark.parametrize(
    ("output_format", "classes", "name", "ids"),
    [
        ("plain", CLASSES, "ulm_000000_000019_leftImg8bit.png", [0, 3]),
        ("ade20k", CLASSES, "ulm_000000_000019_leftImg8bit.png", [1, 4]),
        ("cityscapes", tuple("abcdefghijklmnopqrs"), "ulm_000000_000019_pred_labelIds.png", [7, 12]),
    ],
)
def test_written_predictions(tmp_path, output_format, classes, name, ids):
    metric = make_metric(classes, output_dir=tmp_path / "out", output_format=output_format, format_only=True)
    metric.process(None, [make_sample([[0, 3]], name="ulm_000000_000019_leftImg8bit")])
    assert metric.evaluate(1) == {}
    assert metric.scores is None
    with Image.open(tmp_path / "out" / name) as image:
        np.testing.assert_array_equal(np.array(image), [ids])
    stored = read_label_map(tmp_path / "out" / name)
    np.testing.assert_array_equal(id_format(output_format, len(classes)).decode(stored, name), [[0, 3]])


def test_same_name_in_two_folders_is_an_error(tmp_path):
    metric = make_metric(output_dir=tmp_path, format_only=True)
    first, second = make_sample([[0]]), make_sample([[1]])
    second["img_path"] = "other/a.png"
    metric.process(None, [first])
    with pytest.raises(UserError, match=r"images/a\.png and other/a\.png would both be written to a\.png"):
        metric.process(None, [second])
    # Neither of two ranks sees the other's file; rank 0 finds the clash when it has all results.
    results = [dict(image=path, file="a.png") for path in ("images/a.png", "other/a.png")]
    with pytest.raises(UserError, match="both be written to"):
        metric.compute_metrics(results)


def test_the_next_evaluation_may_write_the_same_names(tmp_path):
    metric = make_metric(output_dir=tmp_path, format_only=True)
    metric.process(None, [make_sample([[0]])])
    metric.evaluate(1)
    moved = make_sample([[1]])
    moved["img_path"] = "elsewhere/a.png"
    metric.process(None, [moved])
    metric.evaluate(1)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), [[1]])


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (make_sample([[0, 1]], [[0, 30]]), r"labels/a\.png: label ids 30 are outside the 4 classes \(0\.\.3"),
        (make_sample([[0, 1]], [[-1, 4]]), r"labels/a\.png: label ids -1, 4 "),
        (make_sample([[0, 4]], [[0, 0]]), r"images/a\.png: the model predicts the classes 4.*num_classes=4"),
        (make_sample([[0, 9]], [[0, 255]]), r"images/a\.png: the model predicts the classes 9"),
        (make_sample([[0, 1]], [[0], [1]]), r"labels/a\.png: the label is 2x1 .* prediction 1x2"),
        (make_sample([[0, 1]]), r"images/a\.png: there is no label to compare with.*format_only"),
    ],
)
def test_bad_samples_name_the_file(sample, message):
    metric = make_metric()
    with pytest.raises(UserError, match=message):
        metric.process(None, [sample])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(iou_metrics=["mIOU"]), "choose from mIoU, mDice, mFscore"),
        (dict(iou_metrics=[]), "choose from mIoU"),
        (dict(output_format="png"), "choose one of plain, cityscapes, ade20k"),
        (dict(format_only=True), "needs output_dir"),
        (dict(nan_to_num=50), "nan_to_num=50: give a score from 0 to 1"),
        (dict(nan_to_num=-1), "nan_to_num=-1: give a score from 0 to 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        ExactIoUMetric(**arguments)


def test_data_set_without_class_names():
    metric = ExactIoUMetric()
    metric.dataset_meta = {}
    with pytest.raises(UserError, match="names no classes"):
        metric.process(None, [make_sample([[0]], [[0]])])


def test_output_dir_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="cannot make output_dir"):
        ExactIoUMetric(output_dir=tmp_path / "out")


@pytest.mark.parametrize(("nan_to_num", "mean"), [(None, 100.0), (0, 50.0), (0.5, 75.0)])
def test_a_class_without_pixels_counts_alike_in_means_tables_and_files(nan_to_num, mean, tmp_path):
    metric = make_metric(("road", "car"), nan_to_num=nan_to_num, iou_metrics=IOU_METRICS)
    metric.process(None, [make_sample([[0, 0]], [[0, 0]])])
    values = metric.evaluate(1)
    assert {values[name] for name in values if name != "aAcc"} == {mean} and values["aAcc"] == 100
    assert metric.scores.as_dict()["mIoU"] == mean and f"mIoU {mean:.2f}" in metric.scores.table()
    found = metric.scores.as_dict()["classes"]["car"]["IoU"]
    assert found == (None if nan_to_num is None else 100 * nan_to_num)


def test_the_first_of_the_metrics_leads():
    for names in (["mIoU"], ["mDice", "mIoU"], ["mFscore"]):
        metric = make_metric(iou_metrics=names)
        metric.process(None, [make_sample([[0]], [[0]])])
        assert next(iter(metric.evaluate(1))) == names[0]


def two_sets(metric, samples):
    """The metric knows the first two samples as "day" and the others as "night"."""
    files = [(one["img_path"], one["seg_map_path"]) for one in samples]
    metric.sets = dict(day=set(files[:2]), night=set(files[2:]))
    return metric


def test_each_of_several_data_sets_is_scored_beside_all():
    samples = random_samples(5)
    metric = two_sets(make_metric(), samples)
    metric.process(None, samples[::-1])
    found = metric.evaluate(5)
    for name, part in (("", samples), ("day/", samples[:2]), ("night/", samples[2:])):
        alone = make_metric()
        alone.process(None, part)
        expected = alone.evaluate(len(part))
        assert {key: found[name + key] for key in expected} == expected
        scores = metric.set_scores[name[:-1]] if name else metric.scores
        assert (scores.confusion == alone.scores.confusion).all()
    assert len(found) == 9 and found["day/mIoU"] != found["night/mIoU"] != found["mIoU"]


def test_the_same_files_in_two_data_sets_count_once_in_each():
    samples = random_samples(2)
    metric = make_metric()
    files = {(one["img_path"], one["seg_map_path"]) for one in samples}
    metric.sets = dict(one=files, other=files)
    metric.process(None, samples + samples)
    found = metric.evaluate(4)
    assert found["one/mIoU"] == found["other/mIoU"] == found["mIoU"]
    assert (metric.scores.confusion == 2 * metric.set_scores["one"].confusion).all()


def test_an_image_of_no_data_set_is_named():
    samples = random_samples(3)
    metric = two_sets(make_metric(), samples)
    del samples[1]["seg_map_path"]
    metric.process(None, samples)
    with pytest.raises(UserError, match=r"day, night the image images/1\.png.*meta_keys"):
        metric.evaluate(3)
