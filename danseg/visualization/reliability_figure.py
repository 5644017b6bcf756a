"""Draw a reliability diagram: how often a network is right where it is so sure."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from danseg.evaluation.calibration import Calibration
from danseg.evaluation.confusion import ratio
from danseg.visualization.page import DPI

WIDTH, HEIGHT = 640, 740  # pixels


def reliability_figure(calibration: Calibration) -> Figure:
    """Accuracy of each bin of confidence beside the line of perfect calibration; below, each bin's pixels."""
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    upper = figure.add_axes((0.13, 0.34, 0.83, 0.6))
    lower = figure.add_axes((0.13, 0.08, 0.83, 0.19), sharex=upper)
    edges = np.linspace(0, 1, calibration.bins + 1)
    width, there = 1 / calibration.bins, calibration.pixels > 0
    left, accuracy, confidence = edges[:-1][there], calibration.accuracy[there], calibration.confidence[there]
    bars: dict[str, Any] = dict(width=width, align="edge", edgecolor="white", linewidth=0.8)
    upper.bar(left, accuracy, color="#3b6fb6", label="share that is right", **bars)
    for sign, colour, what in ((1, "#f3b39f", "surer than right"), (-1, "#9fc4ec", "righter than sure")):
        gap = np.clip(sign * (confidence - accuracy), 0, None)
        upper.bar(left, gap, bottom=np.minimum(accuracy, confidence), color=colour, label=what, **bars)
    upper.plot([0, 1], [0, 1], color="0.3", linestyle="--", linewidth=1.2, label="perfect calibration")
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right")
    upper.legend(loc="upper left", fontsize=10)
    over = calibration.overconfidence
    said = "over" if over > 0 else "under"
    if there.any():
        told = f"ECE {100 * calibration.error:.2f} %, {said}confident by {100 * abs(over):.2f} %"
    else:
        told = "no labelled pixel"
    upper.set_title(f"Reliability of the labels: {told}", fontsize=12, pad=10)
    lower.bar(left, ratio(calibration.pixels, calibration.pixels.sum())[there], color="0.55", **bars)
    lower.set(xlabel="confidence", ylabel="share of pixels")
    for axes in (upper, lower):
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure
