"""Draw maps of attention over the image: from some positions, or the same for all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from danseg.visualization.attention_effect import scale_in_words
from danseg.visualization.comparison_figure import panel_height
from danseg.visualization.marks import draw_mark, in_grey, show, shrunk
from danseg.visualization.page import PANEL_WIDTH, Page, Row, fit, stacked
from danseg.visualization.shown_attention import AttentionMaps, AttentionWeights

COLUMNS = 3
DRAWN = 2 * PANEL_WIDTH  # pixels across that a panel can show, in a PDF too
COLOUR_BAR = 62  # pixels
MOST_ALIKE = 6  # maps of one view without positions that are drawn: a module may have a hundred
# Numbers of either sign: dark is 0 as in the other maps, blue is below it.
SIGNED = LinearSegmentedColormap.from_list(
    "signed", ("#9bd0ff", "#2d7dd2", "#12365e", "#0b0b10", "#6e2410", "#e0641e", "#ffd08a")
)
UNITS = {
    "shares": "× uniform attention",
    "gate": "gate",
    "weights": "weight × number of cells",
    "evidence": "evidence, of its maximum",
}


def attention_figure(
    image: np.ndarray,
    attention: AttentionMaps,
    *,
    labels: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    same_scale: bool = False,
) -> Figure:
    """One panel for each map, as colours over the image in grey, with a bar that tells the numbers.

    - Shares are in multiples of uniform attention. Each panel has its own scale, from 0 to the largest of its
      map, because those of a position on a wide road and of one on a pole differ by orders of magnitude.
    - Gates have the scale from 0 to 1 in all panels, or to their largest, if one is above 1.
    - Weights, as those of a non-local block's dot product, are shown times the number of cells. If some are
      negative, these are blue, and 0 is in the middle of the scale.

    Positions are numbered. Of maps that are the same for all positions, the six that vary most are shown.

    Args:
        image: (H, W, 3) uint8, RGB.
        attention: maps of one module.
        labels: (H, W) predicted class ids. Together with ``classes`` they name the class at each position.
        classes: name of each class, by id.
        same_scale: one scale for all panels, that of all their values.
    """
    part = Maps(image, attention, labels, classes, common_scale([attention]) if same_scale else None)
    return stacked(min(len(part.chosen), COLUMNS), [part])


@dataclass(frozen=True)
class Scale:
    """How numbers become colours, from ``low`` to ``high``; what lies outside gets the end's colour."""

    values: str
    low: float
    high: float

    @property
    def colours(self) -> Colormap:
        if self.low < 0:
            return SIGNED
        return matplotlib.colormaps["viridis" if self.values == "gate" else "inferno"]

    def coloured(self, heat: np.ndarray) -> np.ndarray:
        """A map (H, W) as colours with opacity (H, W, 4), 0 to 1; what is far from 0 covers more."""
        place = np.clip((heat - self.low) / (self.high - self.low), 0, 1)
        strength = np.abs(2 * place - 1) if self.low < 0 else place
        return np.dstack([self.colours(place)[..., :3], 0.35 + 0.5 * strength])

    def over(self, grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
        """Lay a map (H, W) over an image in grey (H, W, 3), uint8."""
        coloured = self.coloured(heat)
        opacity = coloured[..., 3:]
        return ((1 - opacity) * grey + 255 * opacity * coloured[..., :3]).round().astype(np.uint8)


def scale_of(values: str, *maps: np.ndarray) -> Scale:
    """The scale on which maps can be compared; 0 is on it, and for signed weights in its middle."""
    low, high = min(float(one.min()) for one in maps), max(float(one.max()) for one in maps)
    if low < 0:
        high = max(-low, high)
        return Scale(values, -high, high)
    return Scale(values, 0.0, max(high, 1.0) if values == "gate" else max(high, 1e-12))


def common_scale(shown: Sequence[AttentionMaps]) -> Scale:
    """One scale for all maps of some views that have the same kind of values."""
    return scale_of(shown[0].values, *(one.over_image() for one in shown))


class Maps:
    """The rows of :func:`attention_figure`; ``scale`` is common to all panels, None gives each its own."""

    def __init__(
        self,
        image: np.ndarray,
        attention: AttentionMaps,
        labels: np.ndarray | None = None,
        classes: Sequence[str] | None = None,
        scale: Scale | None = None,
    ) -> None:
        self.image, self.attention, self.scale = image, attention, scale
        self.titles = _titles(attention, labels, classes)
        self.chosen = list(range(len(attention.rows)))
        if not attention.positions:
            spread = attention.rows.reshape(len(attention.rows), -1).std(axis=1)
            self.chosen = sorted(np.argsort(-spread, kind="stable")[:MOST_ALIKE].tolist())

    @property
    def rows(self) -> list[Row]:
        height = panel_height(self.image)
        others = [Row(height, COLOUR_BAR)] * (math.ceil(len(self.chosen) / COLUMNS) - 1)
        return [Row(height, COLOUR_BAR, heading=self._heading()), *others]

    def draw(self, page: Page, first: int) -> None:
        size = self.image.shape[:2]
        grey, maps = in_grey(shrunk(self.image, DRAWN)), self.attention.over_image()
        for place, index in enumerate(self.chosen):
            row, column = first + place // COLUMNS, place % COLUMNS
            scale = self.scale or scale_of(self.attention.values, maps[index])
            axes = page.panel(row, column, fit(self.titles[index], PANEL_WIDTH))
            show(axes, scale.over(grey, shrunk(maps[index], DRAWN)), size)
            if self.attention.positions:
                draw_mark(axes, self.attention.positions[index], index + 1, size)
            mappable = ScalarMappable(Normalize(scale.low, scale.high), scale.colours)
            bar = page.figure.colorbar(mappable, cax=page.bar(row, column), orientation="horizontal")
            bar.ax.tick_params(labelsize=9, length=2, pad=2)
            outline: Any = bar.outline  # which matplotlib's types take for a method
            outline.set_linewidth(0.5)
            bar.set_label(self._bar_label(scale, maps[index]), fontsize=9, labelpad=2)

    def _heading(self) -> str:
        if len(self.chosen) == len(self.titles):
            return heading_of(self.attention)
        return (
            f"{heading_of(self.attention)}: the {len(self.chosen)} of {len(self.titles)} maps that vary most"
        )

    def _bar_label(self, scale: Scale, heat: np.ndarray) -> str:
        label = UNITS[scale.values]
        if scale.values == "gate":
            return f"{label}: here from {heat.min():.2f} to {heat.max():.2f}, mean {heat.mean():.2f}"
        if scale.low < 0:
            return f"{label}, negative in blue: here from {heat.min():.3g} to {heat.max():.3g}"
        return f"{label}, from 0 to {'the maximum of all maps' if self.scale else 'this map’s maximum'}"


def heading_of(shown: AttentionMaps | AttentionWeights) -> str:
    """Which attention it is, with the learned scale if there is one."""
    name = f"{shown.module}: {shown.view}" if shown.view else shown.module
    if shown.values == "evidence":
        return f"what speaks for a class in {name}"
    return f"attention of {name}{scale_in_words(shown.scale)}"


def _titles(attention: AttentionMaps, labels: np.ndarray | None, classes: Sequence[str] | None) -> list[str]:
    if not attention.positions:
        count = len(attention.rows)
        names = attention.parts or (
            [""] if count == 1 else [f"map {number}" for number in range(1, count + 1)]
        )
        if attention.values == "evidence":
            return list(names)
        return [", ".join(filter(None, (name, "the same for all positions"))) for name in names]
    titles = []
    for number, (x, y) in enumerate(attention.positions, 1):
        title = f"{number}: from x={x}, y={y}"
        if labels is not None and classes is not None and 0 <= labels[y, x] < len(classes):
            title += f", on {classes[labels[y, x]]}"
        titles.append(title)
    return titles
