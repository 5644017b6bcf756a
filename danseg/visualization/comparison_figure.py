"""Draw an image, its truth and its prediction side by side, with a legend."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from danseg.evaluation.confusion import Scores, count_pairs
from danseg.visualization.colour import VOID_COLOUR, classes_present, colourise
from danseg.visualization.marks import draw_mark
from danseg.visualization.page import PANEL_WIDTH, Page, Row, fit, stacked


def comparison_figure(
    image: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    *,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    name: str = "",
) -> Figure:
    """Image, truth and prediction side by side, with a legend of the classes present.

    Args:
        image: (H, W, 3) uint8, RGB.
        truth: (H, W) class ids; ids outside the classes are drawn black. None draws no truth.
        prediction: (H, W) class ids.
        classes: name of each class, by id.
        palette: (red, green, blue) of each class, by id. A class beyond its end is drawn black too, and the
            legend says so.
        name: title of the image.
    """
    part = Comparison(image, truth, prediction, classes, palette, name)
    return stacked(2 if truth is None else 3, [part])


class Comparison:
    """The row of :func:`comparison_figure`; at ``positions`` (x, y) the image has numbered marks."""

    def __init__(
        self,
        image: np.ndarray,
        truth: np.ndarray | None,
        prediction: np.ndarray,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        name: str = "",
        positions: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.image, self.name, self.positions = image, name, positions
        palette = palette[: len(classes)]
        self.entries = legend_entries(
            classes, palette, *([prediction] if truth is None else [truth, prediction])
        )
        self.maps: list[tuple[str, np.ndarray]] = []
        title = "prediction"
        if truth is not None:
            self.maps.append(("truth", colourise(truth, palette)))
            title += f", mIoU of this frame {100 * frame_miou(truth, prediction, classes):.1f} %"
        self.maps.append((title, colourise(prediction, palette)))

    @property
    def rows(self) -> list[Row]:
        return [Row(panel_height(self.image), legend=self.entries)]

    def draw(self, page: Page, first: int) -> None:
        axes = page.panel(first, 0, fit(self.name or "image", PANEL_WIDTH))
        axes.imshow(self.image, aspect="auto")
        for number, position in enumerate(self.positions, 1):
            draw_mark(axes, position, number, self.image.shape[:2])
        for column, (title, picture) in enumerate(self.maps, 1):
            page.panel(first, column, title).imshow(picture, aspect="auto", interpolation="nearest")


def frame_miou(truth: np.ndarray, prediction: np.ndarray, classes: Sequence[str]) -> float:
    """Mean IoU of a single frame, 0..1, over the classes that occur in its truth or its prediction.

    The mean of these values over all frames is not the mIoU of the data set, which sums intersections and
    unions over all frames before dividing.

    Args:
        truth: (H, W) class ids; pixels outside the classes do not count.
        prediction: (H, W) class ids.
        classes: name of each class, by id.

    Returns:
        The mean IoU; nan for a frame without a labelled pixel.
    """
    count = len(classes)
    if truth.shape != prediction.shape:
        raise ValueError(f"truth of {truth.shape} pixels, prediction of {prediction.shape}")
    labelled = (truth >= 0) & (truth < count)
    predicted = np.where((prediction >= 0) & (prediction < count), prediction, count)
    return Scores(
        tuple(classes), count_pairs(truth[labelled], predicted[labelled], count + 1)[:count]
    ).mean_iou


def legend_entries(
    classes: Sequence[str], palette: Sequence[Sequence[int]], *maps: np.ndarray
) -> list[tuple[str, Sequence[int]]]:
    """Name and colour of each class in label maps, most pixels first, and of what is no class."""
    present = classes_present(*maps, num_classes=len(classes))
    entries = [
        (classes[k], palette[k]) if k < len(palette) else (f"{classes[k]} (no colour)", VOID_COLOUR)
        for k in present
    ]
    if any(((labels < 0) | (labels >= len(classes))).any() for labels in maps):
        entries.append(("not labelled", VOID_COLOUR))
    return entries


def panel_height(image: np.ndarray, panel_width: int = PANEL_WIDTH) -> int:
    """Height in pixels of a panel that shows an image in its own proportions."""
    height, width = image.shape[:2]
    return max(1, round(panel_width * height / width))
