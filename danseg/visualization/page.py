"""A page of panels: where pictures, titles and a legend go, in pixels; and the one way to write a figure.

Everything that draws figures uses matplotlib's object interface, not pyplot. It therefore needs no display,
changes nothing global and can run in several threads. Panels are placed by their sizes in pixels, so that an
image keeps its aspect ratio and a legend covers nothing.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from danseg.io.images import save_image

DPI = 100
PANEL_WIDTH = 560  # pixels
GAP = 14
TITLE = 30
LEGEND_ROW = 26
CHARACTER = 10.5  # pixels: a generous mean width of a character at the font sizes used here


class Page:
    """A grid of equal panels with room for titles, colour bars and a legend, in pixels."""

    def __init__(
        self,
        columns: int,
        rows: Sequence[int],
        height: int,
        legend_rows: int,
        heading: bool,
        panel_width: int = PANEL_WIDTH,
    ) -> None:
        """``rows`` holds the pixels to keep free below each row of panels; ``height`` is that of a panel."""
        self.columns, self.below, self.panel_height = columns, list(rows), height
        self.panel_width = panel_width
        self.top = GAP + (TITLE if heading else 0)
        self.width = columns * self.panel_width + (columns + 1) * GAP
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
        axes = self.axes(*self._corner(row, column), self.panel_width, self.panel_height)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_title(title, fontsize=12, pad=6, parse_math=False)
        return axes

    def bar(self, row: int, column: int) -> Axes:
        """Add axes for a horizontal colour bar below a panel."""
        left, top = self._corner(row, column)
        return self.axes(
            left + 0.1 * self.panel_width, top + self.panel_height + 8, 0.8 * self.panel_width, 10
        )

    def _corner(self, row: int, column: int) -> tuple[float, float]:
        top = self.top + TITLE + sum(TITLE + self.panel_height + GAP + extra for extra in self.below[:row])
        return GAP + column * (self.panel_width + GAP), top

    def heading(self, text: str, top: float | None = None) -> None:
        """Write one line across the page, ``top`` pixels below its upper edge."""
        text = fit(text, self.width)
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
            ncol=math.ceil(len(entries) / rows_of_legend(entries, self.columns, self.panel_width)),
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
            text.set_text(shortened(name))


def fit(text: str, width: float) -> str:
    """Cut text to fit a width in pixels, on the left, where paths and names matter least."""
    most = int(width / CHARACTER)
    return text if len(text) <= most else "…" + text[len(text) - most + 1 :]


def shortened(name: str, longest: int = 36) -> str:
    """A class's name, cut on the right if it is long: the first words tell most."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def rows_of_legend(
    entries: Sequence[tuple[str, Sequence[int]]], panels: int, panel_width: int = PANEL_WIDTH
) -> int:
    """Number of rows of a legend below this many panels, if all columns are as wide as the widest."""
    widest = 60 + CHARACTER * max((len(shortened(name)) for name, _ in entries), default=0)
    return max(1, math.ceil(len(entries) / max(1, int(panels * panel_width / widest))))


def save_figure(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a matplotlib figure as PNG at the figure's own size and resolution.

    Raises:
        UserError: as in :func:`danseg.io.images.save_image`.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return save_image(np.asarray(canvas.buffer_rgba())[..., :3].copy(), path)
