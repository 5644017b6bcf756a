"""Draw figures: a comparison, attention maps, or both on one page."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from danseg.evaluation.confusion import Scores, count_pairs
from danseg.visualization.colour import VOID_COLOUR, classes_present, colourise
from danseg.visualization.page import GAP, LEGEND_ROW, PANEL_WIDTH, TITLE, Page, fit, rows_of_legend
from danseg.visualization.shown_attention import AttentionMaps

COLOUR_BAR = 62  # pixels
HEAT = "inferno"


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
    palette = palette[: len(classes)]
    entries = legend_entries(classes, palette, *([prediction] if truth is None else [truth, prediction]))
    columns = 2 if truth is None else 3
    page = Page(columns, [0], panel_height(image), rows_of_legend(entries, columns), heading=False)
    _draw_comparison(page, image, truth, prediction, classes, palette, name)
    page.legend(entries, below_row=0)
    return page.figure


def attention_figure(
    image: np.ndarray,
    attention: AttentionMaps,
    *,
    labels: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
) -> Figure:
    """One panel per position: where the module looks from there, as a heat map over the image.

    Each panel has its own scale, from 0 to the largest weight of its map, because the weights of a position
    on a wide road and of one on a pole differ by orders of magnitude. The colour bars show the numbers, in
    multiples of uniform attention. Weights that do not sum to 1, as those of a non-local block's dot product,
    are shown times the number of cells, negative ones as 0; the bars' labels say so.

    Args:
        image: (H, W, 3) uint8, RGB.
        attention: maps of one module.
        labels: (H, W) predicted class ids. Together with ``classes`` they name the class at each position.
        classes: name of each class, by id.
    """
    count = len(attention.positions)
    columns = min(count, 3)
    rows = math.ceil(count / columns)
    page = Page(columns, [COLOUR_BAR] * rows, panel_height(image), 0, heading=True)
    page.heading(_attention_heading(attention))
    _draw_attention(page, 0, columns, image, attention, labels, classes)
    return page.figure


def overview_figure(
    image: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    attention: AttentionMaps,
    *,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    name: str = "",
) -> Figure:
    """The comparison and, below it, the attention from numbered positions of the image.

    The arguments are those of :func:`comparison_figure` and :func:`attention_figure`.
    """
    palette = palette[: len(classes)]
    entries = legend_entries(classes, palette, truth, prediction)
    rows = math.ceil(len(attention.positions) / 3)
    legend_rows = rows_of_legend(entries, 3)
    # The first row leaves room for the legend and, below it, for the heading of the maps.
    first = legend_rows * LEGEND_ROW + GAP + TITLE
    page = Page(3, [first] + [COLOUR_BAR] * rows, panel_height(image), 0, heading=False)
    page.legend_height = legend_rows * LEGEND_ROW
    _draw_comparison(page, image, truth, prediction, classes, palette, name)
    page.legend(entries, below_row=0)
    top = page.top + TITLE + page.panel_height + GAP + first
    page.heading(_attention_heading(attention), top - TITLE)
    _draw_attention(page, 1, 3, image, attention, prediction, classes)
    return page.figure


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


def _draw_comparison(page, image, truth, prediction, classes, palette, name) -> None:
    page.panel(0, 0, fit(name or "image", PANEL_WIDTH)).imshow(image, aspect="auto")
    if truth is not None:
        page.panel(0, 1, "truth").imshow(colourise(truth, palette), aspect="auto", interpolation="nearest")
    title = "prediction"
    if truth is not None:
        title += f", mIoU of this frame {100 * frame_miou(truth, prediction, classes):.1f} %"
    axes = page.panel(0, page.columns - 1, title)
    axes.imshow(colourise(prediction, palette), aspect="auto", interpolation="nearest")


def _draw_attention(page, first_row, columns, image, attention, labels, classes) -> None:
    # The image is drawn in dim grey, because its own colours could be mistaken for heat.
    grey = np.repeat((image @ np.array([0.299, 0.587, 0.114]))[..., None] / 255, 3, axis=2)
    colour_map = matplotlib.colormaps[HEAT]
    unit = "× uniform attention" if attention.values == "shares" else "weight × number of cells"
    for index, ((x, y), heat) in enumerate(zip(attention.positions, attention.over_image(), strict=True)):
        row, column = first_row + index // columns, index % columns
        title = f"{index + 1}: from x={x}, y={y}"
        if labels is not None and classes is not None and 0 <= labels[y, x] < len(classes):
            title += f", on {classes[labels[y, x]]}"
        axes = page.panel(row, column, title)
        top = max(float(heat.max()), 1e-12)
        strength = np.clip(heat / top, 0, 1)[..., None]
        opacity = 0.35 + 0.5 * strength
        axes.imshow((1 - opacity) * grey + opacity * colour_map(strength[..., 0])[..., :3], aspect="auto")
        _mark(axes, x, y)
        scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, top), colour_map)
        bar = page.figure.colorbar(scale, cax=page.bar(row, column), orientation="horizontal")
        bar.ax.tick_params(labelsize=9, length=2, pad=2)
        bar.outline.set_linewidth(0.5)
        lowest = ", negative weights as 0" if heat.min() < 0 else ""
        bar.set_label(f"{unit}, from 0 to this map's maximum{lowest}", fontsize=9, labelpad=2)


def _mark(axes: Axes, x: int, y: int) -> None:
    """Draw a ring and a cross that are visible on bright and dark ground."""
    for size, width, colour in ((15, 4.5, "black"), (15, 2.2, "#35f0ff")):
        axes.plot(
            x, y, marker="o", markersize=size, markeredgewidth=width, markeredgecolor=colour, fillstyle="none"
        )
    for size, width, colour in ((7, 3.5, "black"), (6, 1.6, "#35f0ff")):
        axes.plot(x, y, marker="+", markersize=size, markeredgewidth=width, markeredgecolor=colour)


def _attention_heading(attention: AttentionMaps) -> str:
    scale = "" if attention.scale is None else f" (γ = {attention.scale:.3g})"
    return f"attention of {attention.module}{scale} from the ringed positions"


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
