"""Calibration: whether a network that is 80 % sure of its labels is right in 80 % of them.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599). Pixels are sorted into
bins by their confidence, the probability of their label. The expected calibration error is::

    ECE = sum over bins of  pixels of the bin / all pixels * |share that is right - mean confidence|
"""

import dataclasses

import numpy as np

from danseg.evaluation.confusion import ratio


@dataclasses.dataclass(eq=False)
class Calibration:
    """Counts of pixels by confidence, image by image: three numbers a bin, whatever the number of pixels.

    Args:
        bins: M; bin m holds confidences above (m-1)/M, up to m/M, as in the paper; the first one
            holds 0, too.
    """

    bins: int = 15

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"calibration needs at least one bin, got {self.bins}")
        self.pixels = np.zeros(self.bins, dtype=np.int64)
        self.correct_pixels = np.zeros(self.bins, dtype=np.int64)
        self.confidence_sums = np.zeros(self.bins)

    def add(self, confidences: np.ndarray, correct: np.ndarray) -> None:
        """Count pixels.

        Args:
            confidences: floats of any shape, from 0 to 1.
            correct: bools of the same shape: whether the label is right.

        Raises:
            ValueError: the shapes differ, or a confidence lies outside 0..1 or is nan.
        """
        if confidences.shape != correct.shape:
            raise ValueError(f"confidences {confidences.shape} and correct {correct.shape} differ in shape")
        confidences, correct = confidences.astype(np.float64).ravel(), correct.ravel()
        if confidences.size and not (confidences.min() >= 0 and confidences.max() <= 1):
            raise ValueError(f"confidences lie from 0 to 1, got {confidences.min()} to {confidences.max()}")
        places = np.maximum(np.ceil(confidences * self.bins).astype(np.int64) - 1, 0)
        self.pixels += np.bincount(places, minlength=self.bins)
        self.correct_pixels += np.bincount(places[correct], minlength=self.bins)
        self.confidence_sums += np.bincount(places, weights=confidences, minlength=self.bins)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of the pixels of each bin that are right, (M,) float64; nan in an empty bin."""
        return ratio(self.correct_pixels, self.pixels)

    @property
    def confidence(self) -> np.ndarray:
        """Mean confidence of each bin, (M,) float64; nan in an empty bin."""
        return ratio(self.confidence_sums, self.pixels)

    @property
    def error(self) -> float:
        """The expected calibration error, a fraction; nan if there is no pixel."""
        gaps = np.abs(self.correct_pixels - self.confidence_sums).sum()
        return float(ratio(gaps, self.pixels.sum()))

    @property
    def overconfidence(self) -> float:
        """Mean confidence less the share that is right, over all pixels; nan if there is no pixel."""
        return float(ratio(self.confidence_sums.sum() - self.correct_pixels.sum(), self.pixels.sum()))
