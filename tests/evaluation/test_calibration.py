"""Streamed calibration against the definition in float64, with all pixels in memory."""

import math

import numpy as np
import pytest

from danseg.evaluation.calibration import Calibration


def plain(confidences: np.ndarray, correct: np.ndarray, bins: int) -> float:
    error = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = (confidences > low) & (confidences <= high)
        if number == 0:
            inside |= confidences == 0
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidences[inside].mean())
    return float(error)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_equals_the_definition_however_the_pixels_come(bins):
    rng = np.random.default_rng(0)
    confidences = rng.random(5000) ** 0.3
    confidences[:3] = 0, 1, 0.5
    correct = rng.random(5000) < confidences**2
    whole, parts = Calibration(bins), Calibration(bins)
    whole.add(confidences.reshape(50, 100), correct.reshape(50, 100))
    for start in range(0, 5000, 700):
        parts.add(confidences[start : start + 700], correct[start : start + 700])
    assert whole.error == pytest.approx(plain(confidences, correct, bins), abs=1e-12)
    assert parts.error == pytest.approx(whole.error, abs=1e-12)
    assert parts.pixels.tolist() == whole.pixels.tolist() and whole.pixels.sum() == 5000
    assert whole.overconfidence == pytest.approx(confidences.mean() - correct.mean(), abs=1e-12)


def test_borders_belong_to_the_bin_below():
    calibration = Calibration(4)
    calibration.add(np.array([0.0, 0.25, 0.2500001, 0.5, 0.75, 1.0]), np.ones(6, bool))
    assert calibration.pixels.tolist() == [2, 2, 1, 1]
    assert calibration.accuracy.tolist() == [1, 1, 1, 1]


def test_no_pixels_have_no_error_and_an_empty_bin_no_accuracy():
    calibration = Calibration(2)
    calibration.add(np.array([], np.float32), np.array([], bool))
    assert math.isnan(calibration.error) and math.isnan(calibration.overconfidence)
    calibration.add(np.array([0.9], np.float32), np.array([False]))
    assert calibration.error == pytest.approx(0.9)
    assert np.isnan(calibration.confidence[0]) and calibration.accuracy[1] == 0


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_refusals(wrong):
    with pytest.raises(ValueError, match="from 0 to 1"):
        Calibration().add(np.array([0.5, wrong]), np.ones(2, bool))
    with pytest.raises(ValueError, match="differ in shape"):
        Calibration().add(np.zeros(2), np.ones(3, bool))
    with pytest.raises(ValueError, match="at least one bin"):
        Calibration(0)
