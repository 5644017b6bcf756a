"""A page of panels: where pictures, titles and legends go, in pixels; and the one way to write a figure.

Everything that draws figures uses matplotlib's object interface, not pyplot. It therefore needs no display,
changes nothing global and can run in several threads. Panels are placed by their sizes in pixels, so that an
image keeps its aspect ratio and a legend covers nothing.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from danseg.io.files import whole_file
from danseg.io.images import save_image

DPI = 100
PANEL_WIDTH = 560  # pixels
GAP = 14
TITLE = 30
LEGEND_ROW = 26
TICK, NAME = 40, 24  # pixels for numbers beside a chart; characters of a name there
NAME_CHARACTER = 7.5  # pixels of one of these
CHARACTER = 10.5  # pixels: a generous mean width of a character at the font sizes used here


@dataclass(frozen=True)
class Row:
    """A row of panels.

    Attributes:
        height: of its panels, in pixels.
        below: pixels to keep free below them, for colour bars or ticks.
        heading: a line above their titles; none if it is empty.
        legend: name and colour of each entry of a legend below them; none if it is empty.
    """

    height: int
    below: int = 0
    heading: str = ""
    legend: Sequence[tuple[str, Sequence[int]]] = ()


class Page:
    """Rows of equally wide panels with room for headings, titles, colour bars and legends, in pixels."""

    def __init__(self, columns: int, rows: Sequence[Row], panel_width: int = PANEL_WIDTH) -> None:
        self.columns, self.rows, self.panel_width = columns, list(rows), panel_width
        self.width = columns * self.panel_width + (columns + 1) * GAP
        self._tops: list[int] = []  # of the panels
        top = GAP
        for row in self.rows:
            top += (TITLE if row.heading else 0) + TITLE
            self._tops.append(top)
            top += row.height + GAP + row.below + (self._legend_height(row) + GAP if row.legend else 0)
        self.height = top
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        for row, top in zip(self.rows, self._tops, strict=True):
            if row.heading:
                place = 0.5, 1 - (top - 2 * TITLE) / self.height
                text = fit(row.heading, self.width)
                self.figure.text(*place, text, ha="center", va="top", fontsize=13, parse_math=False)
            if row.legend:
                self._draw_legend(row, top + row.height + GAP)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes, given their upper left corner and size in pixels of the page."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def panel(self, row: int, column: int, title: str) -> Axes:
        """Add one panel of the grid, without ticks."""
        axes = self.axes(*self.corner(row, column), self.panel_width, self.rows[row].height)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_title(title, fontsize=12, pad=6, parse_math=False)
        return axes

    def chart(self, row: int, column: int, title: str, names: Sequence[str] = (), span: int = 1) -> Axes:
        """Add axes for bars in the place of a panel.

        Args:
            row, column: the place.
            title: what stands above.
            names: of horizontal bars at heights 0, 1, 2, ..., from the top.
            span: how many panels wide it is.
        """
        names = [shortened(name, NAME) for name in names]
        room = TICK + NAME_CHARACTER * max(map(len, names), default=0)
        left, top = self.corner(row, column)
        width = span * self.panel_width + (span - 1) * GAP
        axes = self.axes(left + room, top, width - room - GAP, self.rows[row].height)
        middle = (width / 2 - room) / (width - room - GAP)  # of the panel, not of the axes
        axes.set_title(fit(title, width), x=middle, fontsize=12, pad=6, parse_math=False)
        axes.tick_params(labelsize=9, length=2, pad=2)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if names:
            axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])  # not as maths
            axes.set_ylim(len(names) - 0.5, -0.5)
        return axes

    def bar(self, row: int, column: int) -> Axes:
        """Add axes for a horizontal colour bar below a panel."""
        left, top = self.corner(row, column)
        return self.axes(
            left + 0.1 * self.panel_width, top + self.rows[row].height + 8, 0.8 * self.panel_width, 10
        )

    def corner(self, row: int, column: int) -> tuple[float, float]:
        """The upper left corner (left, top) of a panel."""
        return GAP + column * (self.panel_width + GAP), self._tops[row]

    def _legend_height(self, row: Row) -> int:
        return rows_of_legend(row.legend, self.columns, self.panel_width) * LEGEND_ROW

    def _draw_legend(self, row: Row, top: float) -> None:
        """Draw the colours and their names below a row of panels."""
        axes = self.axes(GAP, top, self.width - 2 * GAP, self._legend_height(row))
        axes.set_axis_off()
        handles = [
            Patch(facecolor=(red / 255, green / 255, blue / 255), edgecolor="0.4", linewidth=0.5)
            for _, (red, green, blue) in row.legend
        ]
        legend = axes.legend(
            handles,
            [str(number) for number in range(len(handles))],
            loc="upper center",
            # Rows of equal length, not full ones and a short last one.
            ncol=math.ceil(len(handles) / rows_of_legend(row.legend, self.columns, self.panel_width)),
            fontsize=11,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.4,
            handleheight=1.0,
            columnspacing=1.6,
        )
        # Names are set afterwards: matplotlib leaves out labels such as "_background_", and reads $ as maths.
        for text, (name, _) in zip(legend.get_texts(), row.legend, strict=True):
            text.set_parse_math(False)
            text.set_text(shortened(name))


class Part(Protocol):
    """Some rows of a page, and what is drawn into them."""

    @property
    def rows(self) -> list[Row]:
        """The rows that it needs."""

    def draw(self, page: Page, first: int) -> None:
        """Draw into the rows of a page that begin with number ``first``."""


def stacked(columns: int, parts: Sequence[Part]) -> Figure:
    """A page of parts below one another."""
    rows = [part.rows for part in parts]
    page = Page(columns, [row for of_part in rows for row in of_part])
    first = 0
    for part, of_part in zip(parts, rows, strict=True):
        part.draw(page, first)
        first += len(of_part)
    return page.figure


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


def pixels(figure: Figure) -> np.ndarray:
    """A figure as a picture (H, W, 3) uint8 RGB, at its own size and resolution."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a figure at its own size: a PDF, whose text can be searched, or else a PNG.

    Args:
        figure: matplotlib's.
        path: the file; one that ends in ``.pdf`` becomes a PDF. Equal figures give equal files.

    Raises:
        UserError: as in :func:`danseg.io.images.save_image`.
    """
    path = Path(path)
    if path.suffix.lower() != ".pdf":
        return save_image(pixels(figure), path)
    with whole_file(path) as part:
        # Pictures within it get twice the resolution of a PNG's.
        figure.savefig(part, format="pdf", dpi=2 * DPI, metadata={"CreationDate": None})
    return path
