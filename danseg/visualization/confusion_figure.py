"""Draw a confusion matrix: which class is taken for which."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from danseg.evaluation.confusion import Scores, ratio
from danseg.visualization.page import DPI, GAP, shortened

# Up to so many classes: pixels of a cell, size of its number, size of a name. Above, no number has room.
_SIZES = ((12, 56, 11.0, 11.0), (26, 40, 9.0, 10.0), (60, 24, 0.0, 9.0))
_SMALLEST = (14, 0.0, 7.0)
NOT_LABELLED = "0.88"  # grey of a row without pixels


def confusion_figure(scores: Scores) -> Figure:
    """A matrix whose rows are the truth and whose columns are the prediction.

    A cell's colour, and its number where there is room, is the share of its row's pixels in percent: the
    diagonal is the accuracy of each class. A class without a labelled pixel has a grey row and says so.

    Args:
        scores: with up to a few hundred classes.
    """
    count = len(scores.classes)
    unnamed = bool(scores.confusion[:, -1].any())
    shares = ratio(scores.confusion, scores.label_pixels[:, None])[:, : count + unnamed]
    cell, number_size, name_size = next((rest for most, *rest in _SIZES if count <= most), _SMALLEST)
    rows, columns = _names(scores), [*map(shortened, scores.classes), *["no class"] * unnamed]
    margin = GAP + 20 + max(map(len, rows)) * name_size * 0.85
    below = GAP + 40 + max(map(len, columns)) * name_size * 0.85
    twice = count > _SIZES[1][0]  # names on both sides of a large matrix
    left, top = margin + 30, 60 + twice * (below - 40)
    width = max(left + cell * len(columns) + twice * margin + 110, 640)
    height = top + cell * count + below + 10
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    box = (left / width, 1 - (top + cell * count) / height)
    axes = figure.add_axes((*box, cell * len(columns) / width, cell * count / height))
    colours = matplotlib.colormaps["Blues"].with_extremes(bad=NOT_LABELLED)
    # Without numbers, small shares need more of the colours.
    norm = matplotlib.colors.PowerNorm(1 if number_size else 0.5, vmin=0, vmax=1)
    drawn = axes.imshow(np.ma.masked_invalid(shares), cmap=colours, norm=norm, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=name_size, parse_math=False)
    axes.set_yticks(range(count), rows, fontsize=name_size, parse_math=False)
    axes.tick_params(length=2, top=twice, labeltop=twice, right=twice, labelright=twice)
    axes.set_xticks(np.arange(0.5, len(columns) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, count - 1), minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("prediction", fontsize=11)
    axes.set_ylabel("truth", fontsize=11)
    title = "Confusion matrix: share of each true class's pixels, in %"
    figure.text(GAP / width, 1 - GAP / height, title, fontsize=13, va="top")
    if number_size:
        for (row, column), share in np.ndenumerate(shares):
            if np.isfinite(share) and share >= 0.005:
                ink = "white" if share > 0.6 else "black"
                text = f"{100 * share:.0f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=number_size, color=ink)
    right = left + cell * len(columns) + twice * margin + 24
    tall = min(cell * count, 400)
    bar_axes = figure.add_axes((right / width, 1 - (top + tall) / height, 14 / width, tall / height))
    ticks = [0, 0.5, 1] if number_size else [0, 0.1, 0.5, 1]
    bar = figure.colorbar(drawn, cax=bar_axes, ticks=ticks)
    bar.ax.set_yticklabels([f"{100 * tick:g}" for tick in ticks], fontsize=9)
    return figure


def _names(scores: Scores) -> list[str]:
    names = []
    for name, labelled, predicted in zip(
        scores.classes, scores.label_pixels, scores.predicted_pixels, strict=True
    ):
        note = "" if labelled else " (not labelled)" if predicted else " (absent)"
        names.append(shortened(name) + note)
    return names
