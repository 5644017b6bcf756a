"""Draw the curves of trainings below each other, over the same iterations."""

import math
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from danseg.visualization.page import DPI

WIDTH, PANEL, ROW = 1000, 270, 24  # pixels of the page, of a panel with its room, of a name
_STYLES = ("-", "--", ":", "-.")

Curve = Sequence[tuple[int, float]]  # (iteration, value)


def curves_figure(runs: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """One panel for each kind of value that any run has, in the order of the first run that has it.

    Args:
        runs: the curves of each run, by the run's name and by what they show. Few points are marked.
    """
    kinds = list(dict.fromkeys(kind for curves in runs.values() for kind, points in curves.items() if points))
    legend = 14 + ROW * len(runs)
    height = 20 + PANEL * len(kinds) + 40 + legend
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    first = None
    for place, kind in enumerate(kinds):
        bottom = 1 - (20 + PANEL * (place + 1) - 34) / height
        axes = figure.add_axes((0.09, bottom, 0.88, (PANEL - 54) / height), sharex=first)
        first = first or axes
        for number, curves in enumerate(runs.values()):
            points = curves.get(kind) or []
            axes.plot(
                *zip(*points, strict=True) if points else ([], []),
                color=colours[number % len(colours)],
                linestyle=_STYLES[number // len(colours) % len(_STYLES)],
                marker="o" if len(points) < 60 else None,
                markersize=3,
                linewidth=1.4,
            )
        axes.set_title(kind, fontsize=12, parse_math=False)
        axes.grid(color="0.92", linewidth=0.6)
        values = [value for curves in runs.values() for _, value in curves.get(kind) or () if value == value]
        if values and min(values) > 0 and max(values) > 50 * min(values) and math.isfinite(max(values)):
            axes.set_yscale("log")
    if first is not None:
        axes.set_xlabel("iteration", fontsize=11)
        lines = first.get_lines()
        shown = figure.legend(
            lines,
            ["run"] * len(lines),
            loc="lower left",
            bbox_to_anchor=(0.08, 0),
            frameon=False,
            fontsize=10,
        )
        # Afterwards: matplotlib leaves out names that begin with "_", and reads $ as maths.
        for text, name in zip(shown.get_texts(), runs, strict=True):
            text.set_parse_math(False)
            text.set_text(_cut(name))
    return figure


def _cut(name: str, most: int = 100) -> str:
    """A long name without its middle: folders of trainings differ at either end."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 2 :]}"
