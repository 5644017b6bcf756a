"""Draw what a module's attention does to a picture's labels, beside what they are without it."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from danseg.visualization.attention_effect import AttentionEffect
from danseg.visualization.colour import colourise
from danseg.visualization.comparison_figure import legend_entries, panel_height
from danseg.visualization.marks import draw_mark, in_grey
from danseg.visualization.page import Page, Row, stacked

FIRST = 3  # classes that are shown of each position
BAR_ROW = 46  # pixels of a class, with two bars
WITH, WITHOUT = "#2d7dd2", "#c9c9c9"


def effect_figure(
    image: np.ndarray,
    labels: np.ndarray,
    effect: AttentionEffect,
    *,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> Figure:
    """The labels with and without a module's attention, and where they differ.

    Below, for each position, the first three classes with the attention: their probabilities with and without
    it as bars, their logits as numbers.

    Args:
        image: (H, W, 3) uint8, RGB.
        labels: (H, W) class ids with the attention.
        effect: of the module.
        classes: name of each class, by id.
        palette: (red, green, blue) of each class, by id.
    """
    return stacked(3, [EffectPart(image, labels, effect, classes, palette, True)])


class EffectPart:
    """The rows of :func:`effect_figure`; ``legend`` says whether the classes get one here."""

    def __init__(
        self,
        image: np.ndarray,
        labels: np.ndarray,
        effect: AttentionEffect,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        legend: bool = False,
    ) -> None:
        self.image, self.labels, self.effect = image, labels, effect
        self.classes, self.palette = classes, palette[: len(classes)]
        entries = legend_entries(classes, self.palette, labels, effect.labels)
        self.entries = entries if legend else []

    @property
    def rows(self) -> list[Row]:
        heading = self.effect.summary()
        charts = math.ceil(len(self.effect.positions) / 3)
        return [
            Row(panel_height(self.image), heading=heading, legend=self.entries),
            *[Row(FIRST * BAR_ROW, 50)] * charts,
        ]

    def draw(self, page: Page, first: int) -> None:
        differ = self.labels != self.effect.labels
        shown = (in_grey(self.image) * 0.7 + 40).astype(np.uint8)
        shown[differ] = colourise(self.labels, self.palette)[differ]
        for column, (title, picture) in enumerate(
            (
                ("prediction with the attention", colourise(self.labels, self.palette)),
                ("without it", colourise(self.effect.labels, self.palette)),
                ("where they differ, as with it", shown),
            )
        ):
            axes = page.panel(first, column, title)
            axes.imshow(picture, aspect="auto", interpolation="nearest")
            for number, position in enumerate(self.effect.positions, 1):
                draw_mark(axes, position, number, self.image.shape[:2])
        for place in range(len(self.effect.positions)):
            self._draw_position(page, first + 1 + place // 3, place)

    def _draw_position(self, page: Page, row: int, place: int) -> None:
        on, off = self.effect.with_attention[place], self.effect.without[place]
        pairs = probabilities(on), probabilities(off)
        order = np.argsort(-pairs[0], kind="stable")[:FIRST]
        x, y = self.effect.positions[place]
        title = f"{place + 1}: at x={x}, y={y}"
        chart = page.chart(row, place % 3, title, [self.classes[one] for one in order])
        ticks = np.arange(len(order))
        for shift, values, colour in ((-0.2, pairs[0], WITH), (0.2, pairs[1], WITHOUT)):
            chart.barh(ticks + shift, values[order], 0.36, color=colour)
        for tick, one in enumerate(order):
            note = f"{pairs[0][one]:.2f}, without {pairs[1][one]:.2f}"
            if len(on) > 1:
                note += f"\nlogit {on[one]:.3g}, without {off[one]:.3g}"
            chart.text(1.04, tick, note, va="center", fontsize=9)
        chart.set_xlim(0, 1.75)
        chart.set_xticks([0, 0.25, 0.5, 0.75, 1])
        chart.set_xlabel("probability with the attention (blue) and without (grey)", fontsize=9, labelpad=2)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of logits (C,); of one logit, that of label 1, the probabilities of both labels."""
    if len(logits) == 1:
        one = 1 / (1 + np.exp(-logits[0]))
        return np.array([1 - one, one])
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()
