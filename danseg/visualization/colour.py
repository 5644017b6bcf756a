"""Colour label maps: all functions take and return plain arrays.

The caller passes the classes and colours, which are defined only in the data set's ``METAINFO``.
"""

from collections.abc import Sequence

import cv2
import numpy as np

VOID_COLOUR = (0, 0, 0)


def colourise(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Colour a label map.

    Args:
        labels: (H, W) integers. Id ``k`` gets ``palette[k]``; an id outside the palette, such as 255, which
            usually marks unlabelled pixels, becomes black.
        palette: one (red, green, blue) in 0..255 per class.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        ValueError: the labels are no label map, or the palette holds anything but such colours.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"a label map is a 2-d array of integers, got shape {labels.shape} of {labels.dtype}"
        )
    void = len(palette)
    table = np.concatenate([_colours(palette), np.asarray([VOID_COLOUR], dtype=np.uint8)])
    # Compared in the labels' own type, whose range may end before the palette does.
    inside = (labels >= 0) & (labels < void)
    return table[np.where(inside, labels.astype(np.int64), void)]


def _colours(palette: Sequence[Sequence[int]]) -> np.ndarray:
    """The palette (K, 3) as uint8; colours from 0 to 1, or with alpha, would give other colours unnoticed."""
    colours = np.asarray(palette)
    if len(colours) == 0:
        return np.empty((0, 3), dtype=np.uint8)
    if colours.ndim != 2 or colours.shape[1] != 3:
        raise ValueError(f"a palette is one (red, green, blue) per class, got shape {colours.shape}")
    if not np.issubdtype(colours.dtype, np.integer) or colours.min() < 0 or colours.max() > 255:
        raise ValueError(
            f"a palette's colours are whole numbers from 0 to 255, got {colours.dtype} from {colours.min()} "
            f"to {colours.max()}"
        )
    return colours.astype(np.uint8)


def overlay(
    image: np.ndarray, labels: np.ndarray, palette: Sequence[Sequence[int]], opacity: float = 0.5
) -> np.ndarray:
    """Blend a coloured label map over its image; pixels with ids outside the palette show only the image.

    Args:
        image: (H, W, 3) uint8, RGB.
        labels: (H, W) integers.
        palette: one (red, green, blue) per class.
        opacity: share of the colour, from 0 (only the image) to 1 (only the colour).

    Returns:
        (H, W, 3) uint8: ``round((1 - opacity) * image + opacity * colour)``.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must lie in 0..1, got {opacity}")
    if image.shape[:2] != np.shape(labels):
        raise ValueError(f"image of {image.shape[:2]} pixels, label map of {np.shape(labels)}")
    mixed = cv2.addWeighted(np.ascontiguousarray(image), 1 - opacity, colourise(labels, palette), opacity, 0)
    labels = np.asarray(labels)
    outside = (labels < 0) | (labels >= len(palette))
    if outside.any():
        mixed[outside] = image[outside]
    return mixed


def classes_present(*label_maps: np.ndarray, num_classes: int) -> list[int]:
    """Class ids in 0..num_classes-1 that occur in any of the maps, most pixels first."""
    counts = np.zeros(num_classes, dtype=np.int64)
    for labels in label_maps:
        inside = labels[(labels >= 0) & (labels < num_classes)]
        counts += np.bincount(inside.astype(np.int64), minlength=num_classes)
    order = np.argsort(-counts, kind="stable")
    return [int(k) for k in order if counts[k] > 0]
