"""The reliability diagram draws the bins' numbers."""

import numpy as np
import pytest

from danseg.evaluation.calibration import Calibration
from danseg.visualization.reliability_figure import reliability_figure


def test_bars_are_the_accuracy_and_the_gap():
    calibration = Calibration(4)
    calibration.add(np.array([0.9, 0.9, 0.9, 0.9, 0.4, 0.4]), np.array([1, 1, 1, 0, 1, 1], dtype=bool))
    upper, lower = reliability_figure(calibration).axes
    right, surer, righter = ([bar.get_height() for bar in one] for one in upper.containers)
    assert right == pytest.approx([1, 0.75])
    assert surer == pytest.approx([0, 0.15]) and righter == pytest.approx([0.6, 0])
    assert [bar.get_y() for bar in upper.containers[1]] == pytest.approx([0.4, 0.75])
    assert [bar.get_height() for bar in lower.containers[0]] == pytest.approx([1 / 3, 2 / 3])
    assert "ECE 30.00 %, underconfident by 10.00 %" in upper.get_title()


def test_without_a_pixel():
    upper, _ = reliability_figure(Calibration()).axes
    assert "no labelled pixel" in upper.get_title()
