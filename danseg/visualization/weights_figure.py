"""Draw the weights that attention gives to channels or branches: bars, from the strongest to the weakest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from danseg.visualization.attention_figure import SIGNED, heading_of
from danseg.visualization.page import TICK, Page, Part, Row, stacked
from danseg.visualization.shown_attention import AttentionWeights

HEIGHT, TICKS = 260, 50  # pixels of a chart, and of what stands below it
MOST = 5  # channels that are named at either end
GATHERED = 10  # channels whose shares in a row are drawn
ROWS = 2  # rows of a matrix that are drawn, beside the whole
BAR, MEAN, WEAK = "#2d7dd2", "0.35", "#e0641e"


@dataclass(frozen=True)
class Channels:
    """What is known of the channels that a view weighs.

    Attributes:
        serves: for each channel what it serves, such as a class's name, which is named after the channel;
            empty if that is not known.
        rows: which channels' rows to draw, where each has one, with what to say before each; if empty, the
            two that choose most.
    """

    serves: Sequence[str] = ()
    rows: Mapping[int, str] = field(default_factory=dict)

    def named(self, channel: int) -> str:
        """What to call a channel beside a bar."""
        return f"{channel}: {self.serves[channel]}" if self.serves else f"{channel}"

    def titled(self, channel: int) -> str:
        """What to call a channel's row."""
        served = f" ({self.serves[channel]})" if self.serves else ""
        said = self.rows.get(channel, "")
        return f"{said and f'{said}: '}channel {channel}{served} gathers from"


def weights_figure(weights: AttentionWeights, channels: Channels | None = None) -> Figure:
    """Weights of channels or branches as bars.

    - One row for all channels alike: all channels from the strongest to the weakest, a strip with their
      weights in their own order, and the names of those at either end.
    - A row for each channel: all rows as a picture, and of two of them the channels from which they gather
      most.
    - Branches: the mean over channels with the range that holds 80 % of them, in how many channels each
      branch has the largest share, and all channels as a picture.

    Args:
        weights: of one module.
        channels: what is known of its channels.

    Raises:
        ValueError: ``channels`` names a row that is not there, or has not one name for each channel.
    """
    return stacked(3, [weights_part(weights, channels)])


def weights_part(weights: AttentionWeights, channels: Channels | None = None) -> Part:
    """The rows of :func:`weights_figure`, on a page of three columns."""
    if weights.kind == "branches":
        return _Branches(weights)
    channels = channels or Channels()
    rows, count = weights.weights.shape
    if channels.serves and len(channels.serves) != count:
        raise ValueError(f"serves has one name for each of {count} channels, got {len(channels.serves)}")
    if rows == 1:
        return _Alike(weights, channels)
    wrong = [row for row in channels.rows if not 0 <= row < rows]
    if wrong:
        raise ValueError(f"rows of channels go from 0 to {rows - 1}, got {wrong[0]}")
    return _Matrix(weights, channels)


class _Alike:
    """Weights of channels that are the same for all channels, as a gate's."""

    def __init__(self, weights: AttentionWeights, channels: Channels) -> None:
        self.weights, self.row, self.channels = weights, weights.weights[0], channels

    @property
    def rows(self) -> list[Row]:
        return [Row(HEIGHT, TICKS + 14, heading=f"{heading_of(self.weights)}, weights of channels")]

    def draw(self, page: Page, first: int) -> None:
        row, count = self.row, len(self.row)
        order = np.argsort(-row, kind="stable")
        title = f"all {count} channels, strongest first: mean {row.mean():.3g}"
        axes = page.chart(first, 0, title, span=2)
        axes.fill_between(np.arange(count + 1), np.append(row[order], row[order[-1]]), step="post", color=BAR)
        axes.set_xlim(0, count)
        _set_range(axes, self.weights.values, row)
        _draw_level(axes, self.weights.values, row)
        left, top = page.corner(first, 0)
        width = 2 * page.panel_width - TICK  # of the chart above it
        strip = page.axes(left + TICK, top + HEIGHT + 26, width, 14)
        low, high = axes.get_ylim()
        colours = SIGNED if low < 0 else "viridis"
        strip.imshow(row[None], aspect="auto", vmin=low, vmax=high, cmap=colours, interpolation="nearest")
        strip.set_yticks([])
        strip.set_xticks([])
        strip.set_xlabel(f"the same channels in their order, 0 to {count - 1}", fontsize=9, labelpad=3)
        most = min(MOST, count // 2) or 1
        ends = [*order[:most], *(order[-most:] if count > 1 else [])]
        names = [self.channels.named(one) for one in ends]
        chart = page.chart(first, 2, "strongest and weakest", names)
        _draw_bars(chart, row[ends], [BAR] * most + [WEAK] * (len(ends) - most))
        chart.set_xlim(low, high + 0.15 * (high - low))


class _Matrix:
    """A row of weights for each channel, as channel attention's."""

    def __init__(self, weights: AttentionWeights, channels: Channels) -> None:
        self.weights, self.channels = weights, channels
        peaks = np.abs(weights.weights).max(axis=1)
        self.chosen = list(channels.rows)[:ROWS] or np.argsort(-peaks, kind="stable")[:ROWS].tolist()

    @property
    def rows(self) -> list[Row]:
        return [Row(HEIGHT, TICKS, heading=f"{heading_of(self.weights)}, weights of channels")]

    def draw(self, page: Page, first: int) -> None:
        matrix = self.weights.weights
        count, channels = matrix.shape
        axes = page.chart(first, 0, "channels (down) gather from channels")
        low = min(float(matrix.min()), 0.0)
        high = max(float(np.abs(matrix).max()), 1e-12)
        shown = axes.imshow(
            matrix,
            aspect="auto",
            vmin=-high if low < 0 else 0,
            vmax=high,
            cmap=SIGNED if low < 0 else "viridis",
        )
        page.figure.colorbar(shown, ax=axes, pad=0.02).ax.tick_params(labelsize=9, length=2)
        for column, row in enumerate(self.chosen, 1):
            order = _strongest(matrix[row])
            values = matrix[row][order]
            names = [self.channels.named(one) for one in order]
            chart = page.chart(first, column, self.channels.titled(row), names)
            notes = (
                [f"{one:.3g} ({one * channels:.2g} × uniform)" for one in values]
                if self.weights.values == "shares"
                else None
            )
            _draw_bars(chart, values, BAR, notes)
            chart.set_ylim(GATHERED - 0.5, -0.5)
            chart.set_xlim(min(0.0, 1.1 * values.min()), max(1.7 * values.max(), 1e-12))
            _draw_uniform(chart, self.weights.values, 1 / channels)


class _Branches:
    """Weights of branches, each with as many channels."""

    def __init__(self, weights: AttentionWeights) -> None:
        self.weights = weights
        count = len(weights.weights)
        self.names = list(weights.parts) or [f"branch {number}" for number in range(1, count + 1)]

    @property
    def rows(self) -> list[Row]:
        return [Row(HEIGHT, TICKS, heading=f"{heading_of(self.weights)}, weights of branches")]

    def draw(self, page: Page, first: int) -> None:
        shares = self.weights.weights
        count, channels = shares.shape
        mean = shares.mean(axis=1)
        low, high = np.quantile(shares, (0.1, 0.9), axis=1)
        chart = page.chart(first, 0, "mean, and where 80 % of the channels lie", self.names)
        _draw_bars(chart, mean, BAR, np.char.mod("%.3f", mean).tolist(), beyond=high)
        spread = np.maximum([mean - low, high - mean], 0)
        chart.errorbar(mean, range(count), xerr=spread, fmt="none", ecolor=MEAN, capsize=4, linewidth=1.4)
        largest = 1.25 * max(float(high.max()), float(mean.max()), 1e-12)
        chart.set_xlim(min(0.0, float(low.min())), largest)
        _draw_uniform(chart, self.weights.values, 1 / count)
        wins = np.bincount(shares.argmax(axis=0), minlength=count)
        chart = page.chart(first, 1, f"largest in how many of {channels} channels", self.names)
        _draw_bars(chart, wins, BAR, [str(one) for one in wins])
        chart.set_xlim(0, 1.15 * channels)
        axes = page.chart(first, 2, f"each channel, sorted by {self.names[0]}", self.names)
        order = np.argsort(-shares[0], kind="stable")
        axes.imshow(
            shares[:, order], aspect="auto", vmin=0, vmax=max(float(shares.max()), 1e-12), cmap="viridis"
        )
        axes.set_xticks([])


def _strongest(row: np.ndarray) -> np.ndarray:
    """The channels with the largest weights, without those that nothing is left of beside the first."""
    size = np.abs(row)
    order = np.argsort(-size, kind="stable")[:GATHERED]
    return order[size[order] >= 1e-3 * size[order[0]]]


def _set_range(axes: Axes, values: str, row: np.ndarray) -> None:
    """Gates from 0 to 1, or their largest; all others from 0 to theirs, or around 0."""
    low, high = float(row.min()), float(row.max())
    if values == "gate" and low >= 0:
        axes.set_ylim(0, max(1.0, high))
    elif low < 0:
        largest = max(-low, high)
        axes.set_ylim(-1.05 * largest, 1.05 * largest)
    else:
        axes.set_ylim(0, 1.05 * max(high, 1e-12))


def _draw_level(axes: Axes, values: str, row: np.ndarray) -> None:
    level, name = (1 / len(row), "uniform") if values == "shares" else (float(row.mean()), "mean")
    axes.axhline(level, color=MEAN, linestyle="--", linewidth=1.2)
    axes.annotate(
        name, (len(row), level), (-4, 3), textcoords="offset points", ha="right", fontsize=9, color=MEAN
    )


def _draw_uniform(chart: Axes, values: str, level: float) -> None:
    if values == "shares":
        chart.axvline(level, color=MEAN, linestyle="--", linewidth=1.2)
        chart.set_xlabel("share; dashed: uniform", fontsize=9, labelpad=2)


def _draw_bars(
    chart: Axes,
    values: np.ndarray,
    colour: str | list[str],
    notes: Sequence[str] | None = None,
    beyond: np.ndarray | None = None,
) -> None:
    """Horizontal bars with numbers at their ends, or where ``beyond`` says."""
    chart.barh(range(len(values)), values, color=colour, height=0.7)
    notes = [f"{one:.3g}" for one in values] if notes is None else notes
    ends = values if beyond is None else np.maximum(values, beyond)
    for place, (end, note) in enumerate(zip(ends, notes, strict=True)):
        chart.annotate(
            note, (max(end, 0), place), (6, 0), textcoords="offset points", va="center", fontsize=9
        )
