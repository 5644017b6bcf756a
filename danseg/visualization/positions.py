"""Positions in a picture whose attention is worth showing."""

import cv2
import numpy as np


def segment_centres(labels: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Positions whose attention is worth showing: the middles of the largest segments of a label map.

    A segment is a connected region of one class; its middle is the pixel farthest from its border. The
    largest segment of each class comes first, so that a picture shows several classes. Further segments
    follow only if there are fewer classes than positions.

    Args:
        labels: (H, W) class ids.
        count: largest number of positions.

    Returns:
        Pairs (x, y): the largest segments of all classes, then their second largest, and so on; within each
        group the largest first.
    """
    segments = []  # (rank within its class, -area, (x, y))
    for label in np.unique(labels):
        mask = (labels == label).astype(np.uint8)
        number, regions, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        largest = sorted(range(1, number), key=lambda i: -stats[i, cv2.CC_STAT_AREA])[:count]
        segments += [
            (rank, -int(stats[i, cv2.CC_STAT_AREA]), label, regions == i) for rank, i in enumerate(largest)
        ]
    segments.sort(key=lambda segment: segment[:3])
    return [_middle(region) for *_, region in segments[:count]]


def _middle(region: np.ndarray) -> tuple[int, int]:
    """(x, y) of the region's pixel farthest from its border; the image's edge is a border."""
    padded = np.pad(region.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    # In a long region many pixels have the same distance: take the one in their middle, not at an end.
    rows, columns = np.nonzero(distance >= distance.max() - 1e-3)
    centre = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(columns[centre]), int(rows[centre])
