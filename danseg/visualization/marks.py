"""Numbered marks at positions of a picture, and the picture in grey, on which colours tell numbers."""

from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

COLOUR = "#35f0ff"


def draw_mark(axes: Axes, position: tuple[int, int], number: int | None, size: tuple[int, int]) -> None:
    """Draw a ring and a cross, and a number beside them, that are visible on bright and dark ground.

    Args:
        axes: in which an image is shown.
        position: (x, y) in its pixels.
        number: None draws none.
        size: (height, width) of the image, within which the number stays.
    """
    x, y = position
    for width, colour in ((4.5, "black"), (2.2, COLOUR)):
        axes.plot(
            x, y, marker="o", markersize=15, markeredgewidth=width, markeredgecolor=colour, fillstyle="none"
        )
    for side, width, colour in ((7, 3.5, "black"), (6, 1.6, COLOUR)):
        axes.plot(x, y, marker="+", markersize=side, markeredgewidth=width, markeredgecolor=colour)
    height, width = size
    # Marks may lie at the edge: the axes keep the image's limits, and the number goes inwards.
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    if number is None:
        return
    right, above = x < 0.9 * width, y > 0.12 * height
    text = axes.annotate(
        str(number),
        (x, y),
        (11 if right else -11, 8 if above else -8),
        textcoords="offset points",
        ha="left" if right else "right",
        va="bottom" if above else "top",
        fontsize=12,
        fontweight="bold",
        color=COLOUR,
    )
    text.set_path_effects([withStroke(linewidth=3, foreground="black")])


def in_grey(image: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) uint8 in grey: its own colours could be mistaken for numbers."""
    return np.repeat(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def show(axes: Axes, picture: np.ndarray, size: tuple[int, int], **how: Any) -> None:
    """Show a picture that may be smaller than the image: axes count in the pixels of the image.

    Args:
        axes: where.
        picture: (h, w, 3).
        size: (height, width) of the image.
        how: arguments of ``imshow``.
    """
    height, width = size
    axes.imshow(picture, aspect="auto", extent=(-0.5, width - 0.5, height - 0.5, -0.5), **how)


def shrunk(picture: np.ndarray, width: int) -> np.ndarray:
    """A picture or map no wider than ``width``, which saves time and memory where no more can be seen."""
    scale = width / picture.shape[1]
    if scale >= 1:
        return picture
    size = width, max(1, round(scale * picture.shape[0]))
    return cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA)
