"""Boundary IoU against erosions of each class's mask, one pixel at a time, as in the paper."""

import math

import numpy as np
import pytest

from danseg.evaluation.boundary_iou import BoundaryIoU, band_width, boundary_bands

VOID = 3  # three classes


def eroded(mask: np.ndarray) -> np.ndarray:
    """A pixel stays if its eight neighbours belong to the mask; outside the image nothing does."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.logical_and.reduce(shifted)


def band(mask: np.ndarray, distance: int) -> np.ndarray:
    inner = mask
    for _ in range(distance):
        inner = eroded(inner)
    return mask & ~inner


def plain(pairs, share: float) -> list[float]:
    """The scores of the classes by the equation, from masks; nan without an outline."""
    scores = []
    for number in range(VOID):
        both = either = 0
        for labels, predictions in pairs:
            known = labels != VOID
            distance = max(1, round(share * math.sqrt(labels.shape[0] ** 2 + labels.shape[1] ** 2)))
            truth = band((labels == number) & known, distance)
            guess = band((predictions == number) & known, distance)
            both += int((truth & guess).sum())
            either += int((truth | guess).sum())
        scores.append(both / either if either else math.nan)
    return scores


def blobs(seed: int, height: int, width: int, classes: int) -> np.ndarray:
    """Regions of all kinds: nearest of a few random points."""
    rng = np.random.default_rng(seed)
    ids, places = rng.integers(0, classes, 9), rng.random((9, 2)) * (height, width)
    grid = np.stack(np.mgrid[:height, :width], -1)
    nearest = ((grid[:, :, None] - places) ** 2).sum(-1).argmin(-1)
    return ids[nearest]


@pytest.mark.parametrize("share", [0.001, 0.02, 0.1, 1.0])
def test_equals_the_equation(share):
    sizes = [(40, 61), (37, 23), (1, 9), (6, 5)]
    pairs = [(blobs(n, *size, VOID + 1), blobs(n + 9, *size, VOID)) for n, size in enumerate(sizes)]
    assert any((labels == VOID).any() for labels, _ in pairs)
    found = BoundaryIoU(VOID, share)
    for labels, predictions in pairs:
        found.add(labels, predictions)
    assert found.scores.tolist() == plain(pairs, share)
    assert found.mean == pytest.approx(np.nanmean(plain(pairs, share)), abs=1e-15)


def test_bands_of_more_classes_than_a_byte_holds():
    labels = blobs(1, 30, 40, 9) * 256  # ids up to 2048, that differ in their upper byte alone
    want = np.zeros(labels.shape, bool)
    for number in np.unique(labels):
        want |= band(labels == number, 3)
    assert np.array_equal(boundary_bands(labels, 3), want)


def test_a_class_that_is_nowhere_has_no_score_or_the_given_one():
    labels = np.zeros((8, 8), np.int64)
    scores = BoundaryIoU(2)
    scores.add(labels, labels)
    assert scores.scores[0] == 1 and math.isnan(scores.scores[1]) and scores.mean == 1
    scores = BoundaryIoU(2, absent=0.0)
    scores.add(labels, labels)
    assert scores.scores.tolist() == [1, 0] and scores.mean == 0.5


def test_sees_an_outline_that_iou_does_not():
    labels, moved = np.zeros((200, 200), np.int64), np.zeros((200, 200), np.int64)
    labels[:100], moved[:104] = 1, 1
    scores = BoundaryIoU(2, share=0.01)  # 3 pixels
    scores.add(labels, moved)
    assert scores.scores.max() < 0.75  # the frame alone agrees
    assert (labels == 1).sum() / (moved == 1).sum() > 0.96


def test_widths_and_refusals():
    assert band_width(1024, 2048, 0.02) == 46 and band_width(3, 4, 0.02) == 1
    for share in (0, -0.1, 1.5):
        with pytest.raises(ValueError, match="share of the diagonal"):
            BoundaryIoU(2, share)
