"""Boundary IoU: how well a prediction follows the outlines of the classes.

Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021
(arXiv:2103.16562). For a class, with G its pixels in the truth, P those in the prediction, and X_d the pixels
of X within a distance d of its outline::

    |G_d and P_d| / |G_d or P_d|

Large regions have far more pixels inside than at their rim, so that IoU hardly sees their outlines; this
score sees nothing else. Counts are added up over all images before they are divided, as for IoU.

As in the authors' code, d is a share of the image's diagonal, a distance is the greater of its two
coordinates (an erosion by squares), and a region ends where the image ends. Ignored pixels count nowhere, and
are cut out of the prediction too: what it shows there moves no outline.
"""

import dataclasses
import math

import cv2
import numpy as np

from danseg.evaluation.confusion import count_pairs, mean, ratio


def band_width(height: int, width: int, share: float) -> int:
    """The distance d in pixels for an image: this share of its diagonal, rounded, and 1 at least."""
    return max(1, round(share * math.hypot(height, width)))


def boundary_bands(labels: np.ndarray, distance: int) -> np.ndarray:
    """Which pixels lie within a distance of the outline of their region, of whatever class that is.

    Args:
        labels: (H, W) ids of classes, from 0 to 65535.
        distance: in pixels; 1 marks those that touch another region, also by a corner, or the image's frame.

    Returns:
        (H, W) bool.
    """
    labels = np.ascontiguousarray(labels, dtype=np.uint16)
    # A pixel is that near to the outline if another id, or the outside, lies in the square around it.
    square = np.ones((2 * distance + 1, 1), np.uint8)
    least, greatest = labels, labels
    for kernel in (square, square.T):  # a square is its two sides, one after the other
        least, greatest = cv2.erode(least, kernel), cv2.dilate(greatest, kernel)
    bands = least != greatest
    bands[:distance] = bands[-distance:] = True
    bands[:, :distance] = bands[:, -distance:] = True
    return bands


@dataclasses.dataclass(eq=False)
class BoundaryIoU:
    """Counts of the pixels near outlines, image by image, and the score of every class.

    Args:
        num_classes: C.
        share: the distance d as a share of an image's diagonal.
        absent: score of a class that has no outline, as a fraction; nan leaves it out of the mean.
    """

    num_classes: int
    share: float = 0.02
    absent: float = float("nan")

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(
                f"the width of the bands is a share of the diagonal, above 0 and up to 1, got {self.share}"
            )
        # Row = label, column = prediction; the last of each means not near the outline, or ignored.
        self.counts = np.zeros((self.num_classes + 1,) * 2, dtype=np.int64)

    def add(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Count an image.

        Args:
            labels: (H, W) ids 0..C-1, and C where the label is ignored.
            predictions: (H, W) ids 0..C-1.
        """
        void = self.num_classes
        predictions = np.where(labels == void, void, predictions)
        height, width = labels.shape
        distance = band_width(height, width, self.share)
        near = [np.where(boundary_bands(ids, distance), ids, void) for ids in (labels, predictions)]
        self.counts += count_pairs(near[0], near[1], void + 1)

    @property
    def label_pixels(self) -> np.ndarray:
        """Pixels of each class near its outline in the truth, (C,) int64."""
        return self.counts[:-1].sum(axis=1)

    @property
    def scores(self) -> np.ndarray:
        """Boundary IoU of each class, (C,) float64 from 0 to 1, ``absent`` where there is no outline."""
        both = np.diagonal(self.counts)[:-1]
        either = self.label_pixels + self.counts[:, :-1].sum(axis=0) - both
        return np.nan_to_num(ratio(both, either), nan=self.absent)

    @property
    def mean(self) -> float:
        return mean(self.scores)
