"""Draw where a prediction is wrong: image, truth, prediction and errors of one frame."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from danseg.visualization.colour import colourise
from danseg.visualization.comparison_figure import legend_entries, panel_height
from danseg.visualization.page import PANEL_WIDTH, Page, Row, fit

WRONG, NOT_LABELLED = (255, 45, 45), (0, 0, 0)


def errors_figure(
    image: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    name: str = "",
    score: str = "",
) -> Figure:
    """Image and truth above prediction and errors, with a legend of the classes present.

    The errors are red over the image in grey; pixels whose truth is no class are black.

    Args:
        image: (H, W, 3) uint8, RGB.
        truth: (H, W) class ids; ids outside the classes count as not labelled.
        prediction: (H, W) class ids.
        classes: name of each class, by id.
        palette: (red, green, blue) of each class, by id.
        name: title of the image.
        score: what to say beside "prediction".
    """
    palette = palette[: len(classes)]
    entries = [*legend_entries(classes, palette, truth, prediction), ("error", WRONG)]
    height = panel_height(image)
    page = Page(2, [Row(height), Row(height, legend=entries)])
    pictures = [
        (fit(name or "image", PANEL_WIDTH), image),
        ("truth", colourise(truth, palette)),
        (f"prediction, {score}" if score else "prediction", colourise(prediction, palette)),
        (_said(truth, prediction, len(classes)), _errors(image, truth, prediction, len(classes))),
    ]
    for place, (title, picture) in enumerate(pictures):
        drawn = None if picture is image else "nearest"
        page.panel(*divmod(place, 2), title).imshow(picture, aspect="auto", interpolation=drawn)
    return page.figure


def _said(truth: np.ndarray, prediction: np.ndarray, count: int) -> str:
    labelled = (truth >= 0) & (truth < count)
    wrong, pixels = int((labelled & (truth != prediction)).sum()), int(labelled.sum())
    return f"errors: {100 * wrong / pixels:.1f} % of the labelled pixels" if pixels else "no labelled pixel"


def _errors(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, count: int) -> np.ndarray:
    labelled = (truth >= 0) & (truth < count)
    grey = (image @ np.array([0.299, 0.587, 0.114]) * 0.7 + 40).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[labelled & (truth != prediction)] = WRONG
    picture[~labelled] = NOT_LABELLED
    return picture
