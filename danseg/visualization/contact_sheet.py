"""Draw a contact sheet: many samples on one page, each beside its label laid over it."""

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from matplotlib.figure import Figure

from danseg.visualization.colour import classes_present, overlay
from danseg.visualization.comparison_figure import legend_entries
from danseg.visualization.page import Page, Row, fit

COLUMNS, WIDTH = 4, 560  # samples in a row; pixels of a sample, its image and its label
MOST = 256  # samples: a taller page than matplotlib can draw would follow
_GAP = 0.015  # between image and label, as a share of the image's width


Named = tuple[str, np.ndarray, np.ndarray | None]  # name, image (H, W, 3) uint8 RGB, label (H, W) or None


def shrunk(name: str, image: np.ndarray, label: np.ndarray | None) -> Named:
    """A sample of which no more is kept than the sheet can show: sides of up to ``WIDTH`` pixels."""
    height, width = image.shape[:2]
    scale = WIDTH / max(height, width)
    if scale >= 1:
        return name, image, label
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if label is not None:
        label = cv2.resize(label.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.int64)
    return name, small, label


def contact_sheet(
    samples: Sequence[Named],
    *,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    heading: str,
) -> Figure:
    """A page of samples with a legend of the classes that they show, most pixels first.

    Args:
        samples: up to ``MOST``. Pixels whose id is no class show the image.
        classes: name of each class, by id.
        palette: (red, green, blue) of each class, by id.
        heading: one line above all.
    """
    pictures = [_pair(image, label, palette) for _, image, label in samples]
    # As tall as the tallest, but no strip of a tall image: that is shown smaller.
    height = min(max(round(WIDTH * len(one) / one.shape[1]) for one in pictures), 2 * WIDTH)
    columns = min(COLUMNS, len(samples))
    maps = [label for _, _, label in samples if label is not None]
    present = classes_present(*maps, num_classes=len(classes))
    entries = legend_entries(classes, palette, *maps)[: len(present)]  # what is no class shows the image
    rows = [Row(height)] * math.ceil(len(samples) / columns)
    rows[0] = replace(rows[0], heading=heading)
    rows[-1] = replace(rows[-1], legend=entries)
    page = Page(columns, rows, panel_width=WIDTH)
    for place, ((name, _, label), picture) in enumerate(zip(samples, pictures, strict=True)):
        title = fit(name if label is not None else f"{name} (no label)", WIDTH)
        page.panel(*divmod(place, columns), title).imshow(picture, aspect="equal")
    return page.figure


def _pair(image: np.ndarray, label: np.ndarray | None, palette: Sequence[Sequence[int]]) -> np.ndarray:
    if label is None:
        return image
    gap = np.full((len(image), max(1, round(_GAP * image.shape[1])), 3), 255, dtype=np.uint8)
    return np.concatenate([image, gap, overlay(image, label, palette, opacity=0.6)], axis=1)
