"""Counting and scoring, compared with loops over pixels and with mmseg's own metric."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric

from danseg.errors import UserError
from danseg.evaluation.confusion import Scores, add_sparse, count_pairs, sparse


def _random_confusion(rng: np.random.Generator, classes: int) -> np.ndarray:
    return rng.integers(0, 1000, (classes, classes + 1))


def test_count_pairs_counts_every_pixel():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 5, (2, 7, 9))
    expected = np.zeros((5, 5), dtype=np.int64)
    for label, prediction in zip(labels.ravel(), predictions.ravel(), strict=True):
        expected[label, prediction] += 1
    for dtype in (np.uint8, np.int64):
        table = count_pairs(labels.astype(dtype), predictions.astype(dtype), 5)
        assert table.dtype == np.int64
        np.testing.assert_array_equal(table, expected)


def test_count_pairs_of_8_bit_ids_does_not_wrap():
    labels = np.full((2, 3), 255, dtype=np.uint8)
    table = count_pairs(labels, labels, 256)
    assert table[255, 255] == 6 and table.sum() == 6


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 5], [0, 0], "labels span 0..5, allowed are 0..4"),
        ([0, 0], [0, -1], "predictions span -1..0"),
        ([0, 0, 0], [0, 0], "differ in shape"),
    ],
)
def test_count_pairs_refuses(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        count_pairs(np.array(labels), np.array(predictions), 5)


def test_sparse_round_trip():
    table = np.random.default_rng(1).integers(0, 3, (6, 6))
    total = np.ones((6, 6), dtype=np.int64)
    positions, counts = sparse(table)
    assert (counts > 0).all()
    add_sparse(total, positions, counts)
    np.testing.assert_array_equal(total, table + 1)


def test_scores_equal_a_loop():
    confusion = _random_confusion(np.random.default_rng(2), 4)
    scores = Scores(("a", "b", "c", "d"), confusion)
    for c in range(4):
        true_positive = confusion[c, c]
        false_negative = sum(confusion[c, p] for p in range(5) if p != c)
        false_positive = sum(confusion[g, c] for g in range(4) if g != c)
        assert scores.iou[c] == true_positive / (true_positive + false_positive + false_negative)
        assert scores.acc[c] == true_positive / (true_positive + false_negative)
        assert scores.precision[c] == true_positive / (true_positive + false_positive)
        precision, recall = scores.precision[c], scores.acc[c]
        assert scores.dice[c] == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-14)
        fscore = 5 * precision * recall / (4 * precision + recall)
        assert scores.fscore(2)[c] == pytest.approx(fscore, rel=1e-14)
    assert scores.pixel_acc == sum(confusion[c, c] for c in range(4)) / confusion.sum()
    assert scores.percent()["mIoU"] == pytest.approx(np.mean(scores.iou) * 100, rel=1e-15)


def test_classes_without_pixels_are_left_out_of_the_mean():
    # Class 1 occurs nowhere, class 2 is predicted only, class 3 is labelled and missed.
    confusion = np.array([[8, 0, 2, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [5, 0, 0, 0, 0]])
    scores = Scores(("a", "b", "c", "d"), confusion)
    np.testing.assert_array_equal(scores.iou, [8 / 15, np.nan, 0, 0])
    np.testing.assert_array_equal(scores.acc, [8 / 10, np.nan, np.nan, 0])
    assert scores.mean_iou == pytest.approx(8 / 45)
    assert scores.mean_acc == pytest.approx(0.4)


def test_no_pixels_at_all_is_nan_without_a_warning(recwarn):
    scores = Scores(("a", "b"), np.zeros((2, 3), dtype=np.int64))
    assert all(np.isnan(value) for value in scores.percent().values())
    assert scores.as_dict()["mIoU"] is None
    assert "mIoU -" in scores.table()
    assert not recwarn.list


def test_counts_above_float32_are_exact():
    # 2^24 + 1 is the first integer that float32 cannot represent.
    confusion = np.array([[2**24 + 1, 1, 0], [0, 2**24 + 3, 0]])
    scores = Scores(("a", "b"), confusion)
    assert scores.iou[0] == (2**24 + 1) / (2**24 + 2)
    assert scores.iou[1] == (2**24 + 3) / (2**24 + 4)


@pytest.mark.slow
def test_an_image_of_25_megapixels():
    labels = np.zeros((5000, 5000), dtype=np.uint8)
    predictions = np.zeros((5000, 5000), dtype=np.uint8)
    predictions[:1400] = 1
    table = count_pairs(labels, predictions, 2)
    scores = Scores(("a", "b"), np.hstack([table, np.zeros((2, 1), dtype=np.int64)]))
    assert table[0, 0] == 3600 * 5000 > 2**24
    assert scores.iou[0] == 0.72


def test_small_images_agree_with_mmseg():
    rng = np.random.default_rng(3)
    labels, predictions = torch.from_numpy(rng.integers(0, 6, (2, 40, 50)))
    labels[:5] = 255
    areas = IoUMetric.intersect_and_union(predictions, labels, 6, 255)
    theirs = IoUMetric.total_area_to_metrics(*areas, metrics=["mIoU", "mDice", "mFscore"], beta=2)
    ignored = torch.where(labels == 255, 6, labels)
    scores = Scores(tuple("abcdef"), count_pairs(ignored.numpy(), predictions.numpy(), 7)[:6])
    ours = {
        "IoU": scores.iou,
        "Acc": scores.acc,
        "Dice": scores.dice,
        "Fscore": scores.fscore(2),
        "Precision": scores.precision,
        "Recall": scores.acc,
        "aAcc": scores.pixel_acc,
    }
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=1e-6, err_msg=name)


def test_written_files_are_unrounded(tmp_path):
    confusion = np.array([[2, 1, 0], [0, 0, 0]])
    scores = Scores(("road", "a, b"), confusion)
    scores.write(tmp_path / "s.json", dataset="x")
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["dataset"] == "x" and content["unit"] == "percent"
    assert content["classes"]["road"] == {
        "IoU": 2 / 3 * 100,
        "Acc": 2 / 3 * 100,
        "label_pixels": 3,
        "predicted_pixels": 2,
    }
    assert content["classes"]["a, b"]["Acc"] is None
    scores.write(tmp_path / "s.csv", dataset="x")
    with open(tmp_path / "s.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["road", "a, b", "mean"]
    assert float(rows[0]["IoU"]) == 2 / 3 * 100 and rows[1]["Acc"] == ""
    assert float(rows[2]["IoU"]) == content["mIoU"]


def test_scores_refuse_other_matrices():
    with pytest.raises(ValueError, match=r"must be \(2, 3\), got \(2, 2\)"):
        Scores(("a", "b"), np.zeros((2, 2), dtype=np.int64))
    with pytest.raises(ValueError, match="float32"):
        Scores(("a", "b"), np.zeros((2, 3), dtype=np.float32))


@pytest.mark.parametrize("name", ["scores.json", "scores.csv"])
def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch, name):
    scores = Scores(("a", "b"), np.array([[1, 0, 0], [0, 1, 0]]))
    scores.write(tmp_path / name)
    before = (tmp_path / name).read_bytes()

    def half(path, text, **options):
        path.write_bytes(text[:9].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(UserError, match=f"cannot write .*{name}: No space left"):
        scores.write(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before
