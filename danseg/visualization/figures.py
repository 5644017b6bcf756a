"""Draw figures: a comparison, attention maps, or both on one page.

This module uses only matplotlib's object interface, not pyplot. It therefore needs no display, changes
nothing global and can run in several threads. It places panels by their sizes in pixels, so that an image
keeps its aspect ratio and a legend covers nothing.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from danseg.evaluation.confusion import Scores, count_pairs
from danseg.io.images import save_image
from danseg.visualization.attention_recording import AttentionMaps
from danseg.visualization.colour import VOID_COLOUR, classes_present, colourise

DPI = 100
PANEL_WIDTH = 560  # pixels
GAP = 14
TITLE = 30
LEGEND_ROW = 26
CHARACTER = 10.5  # pixels: a generous mean width of a character at the font sizes used here
COLOUR_BAR = 62
HEAT = "inferno"


class _Page:
    """A grid of equal panels with room for titles, colour bars and a legend, in pixels."""

    def __init__(
        self, columns: int, rows: Sequence[int], height: int, legend_rows: int, heading: bool
    ) -> None:
        """``rows`` holds the pixels to keep free below each row of panels; ``height`` is that of a panel."""
        self.columns, self.below, self.panel_height = columns, list(rows), height
        self.top = GAP + (TITLE if heading else 0)
        self.width = columns * PANEL_WIDTH + (columns + 1) * GAP
        self.legend_height = legend_rows * LEGEND_ROW
        self.height = (
            self.top
            + sum(TITLE + height + GAP + extra for extra in rows)
            + self.legend_height
            + (GAP if legend_rows else 0)
        )
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes, given their upper left corner and size in pixels of the page."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def panel(self, row: int, column: int, title: str) -> Axes:
        """Add one panel of the grid, without ticks."""
        axes = self.axes(*self._corner(row, column), PANEL_WIDTH, self.panel_height)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_title(title, fontsize=12, pad=6, parse_math=False)
        return axes

    def bar(self, row: int, column: int) -> Axes:
        """Add axes for a horizontal colour bar below a panel."""
        left, top = self._corner(row, column)
        return self.axes(left + 0.1 * PANEL_WIDTH, top + self.panel_height + 8, 0.8 * PANEL_WIDTH, 10)

    def _corner(self, row: int, column: int) -> tuple[float, float]:
        top = self.top + TITLE + sum(TITLE + self.panel_height + GAP + extra for extra in self.below[:row])
        return GAP + column * (PANEL_WIDTH + GAP), top

    def heading(self, text: str, top: float | None = None) -> None:
        """Write one line across the page, ``top`` pixels below its upper edge."""
        text = _fit(text, self.width)
        place = 0.5, 1 - (GAP if top is None else top) / self.height
        self.figure.text(*place, text, ha="center", va="top", fontsize=13, parse_math=False)

    def legend(self, entries: Sequence[tuple[str, Sequence[int]]], below_row: int) -> None:
        """Draw the colours and their names below a row of panels."""
        top = self._corner(below_row, 0)[1] + self.panel_height + GAP
        axes = self.axes(GAP, top, self.width - 2 * GAP, self.legend_height)
        axes.set_axis_off()
        handles = [
            Patch(facecolor=(red / 255, green / 255, blue / 255), edgecolor="0.4", linewidth=0.5)
            for _, (red, green, blue) in entries
        ]
        legend = axes.legend(
            handles,
            [str(number) for number in range(len(entries))],
            loc="upper center",
            # Rows of equal length, not full ones and a short last one.
            ncol=math.ceil(len(entries) / _legend_rows(entries, self.columns)),
            fontsize=11,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.4,
            handleheight=1.0,
            columnspacing=1.6,
        )
        # Names are set afterwards: matplotlib leaves out labels such as "_background_", and reads $ as maths.
        for text, (name, _) in zip(legend.get_texts(), entries, strict=True):
            text.set_parse_math(False)
            text.set_text(name)


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
    entries = _legend_entries(truth, prediction, classes, palette)
    columns = 2 if truth is None else 3
    page = _Page(columns, [0], _panel_height(image), _legend_rows(entries, columns), heading=False)
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
    page = _Page(columns, [COLOUR_BAR] * rows, _panel_height(image), 0, heading=True)
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
    entries = _legend_entries(truth, prediction, classes, palette)
    rows = math.ceil(len(attention.positions) / 3)
    legend_rows = _legend_rows(entries, 3)
    # The first row leaves room for the legend and, below it, for the heading of the maps.
    first = legend_rows * LEGEND_ROW + GAP + TITLE
    page = _Page(3, [first] + [COLOUR_BAR] * rows, _panel_height(image), 0, heading=False)
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
    page.panel(0, 0, _fit(name or "image", PANEL_WIDTH)).imshow(image, aspect="auto")
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
    unit = "× uniform attention" if attention.sums_to_one else "weight × number of cells"
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


def _fit(text: str, width: float) -> str:
    """Cut text to fit a width in pixels, on the left, where paths and names matter least."""
    most = int(width / CHARACTER)
    return text if len(text) <= most else "…" + text[len(text) - most + 1 :]


def _legend_entries(truth, prediction, classes, palette) -> list[tuple[str, Sequence[int]]]:
    maps = [prediction] if truth is None else [truth, prediction]
    present = classes_present(*maps, num_classes=len(classes))
    entries = [
        (classes[k], palette[k]) if k < len(palette) else (f"{classes[k]} (no colour)", VOID_COLOUR)
        for k in present
    ]
    if any(((labels < 0) | (labels >= len(classes))).any() for labels in maps):
        entries.append(("not labelled", VOID_COLOUR))
    return entries


def _legend_rows(entries: Sequence[tuple[str, Sequence[int]]], panels: int) -> int:
    """Number of rows of a legend below this many panels, if all columns are as wide as the widest."""
    widest = 60 + CHARACTER * max((len(name) for name, _ in entries), default=0)
    return max(1, math.ceil(len(entries) / max(1, int(panels * PANEL_WIDTH / widest))))


def _panel_height(image: np.ndarray) -> int:
    height, width = image.shape[:2]
    return max(1, round(PANEL_WIDTH * height / width))


def save_figure(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a matplotlib figure as PNG at the figure's own size and resolution.

    Raises:
        UserError: as in :func:`danseg.io.images.save_image`.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return save_image(np.asarray(canvas.buffer_rgba())[..., :3].copy(), path)
