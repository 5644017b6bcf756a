"""What a network's attention does over many pictures: which of its heads live, and which are dead."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mmseg.models import BaseSegmentor

from danseg.apis.exploration import Exploration, explore
from danseg.apis.pictures import Picture
from danseg.evaluation.attention_measures import as_shares, difference, entropy, mean_distance
from danseg.visualization import AttentionMaps, AttentionWeights

# Below these a head is called what the verdict says; RULE tells the user.
IDLE, FLAT, ALIKE = 0.001, 0.99, 0.01
#: How verdicts are given, in words.
RULE = (
    "dead: γ is 0, or no logit changes without the attention; idle: without it fewer than 0.1 % of the "
    "pixels get another label. Of the others, a view is flat if its entropy is 0.99 or more (it takes all "
    "alike), the same from everywhere if the maps of a picture's positions differ by less than 0.01, and "
    "constant if gates or shares spread by less than 0.01 over a picture and from picture to picture; else "
    "it is alive."
)


@dataclass(frozen=True)
class ViewStatistics:
    """One view of a module, over all pictures.

    Attributes:
        key: as in :attr:`danseg.apis.Exploration.views`.
        kind, values: as in :class:`danseg.attention.parts.views.View`.
        figures: means over the pictures, by name:

            - ``entropy`` of shares, over that of equal ones: 1 all alike, 0 a single cell, channel or branch;
              ``entropy_spread``, its standard deviation over positions or rows. Weights of either sign count
              by their size;
            - ``distance`` of a map, how far a position looks on average, as a share of the picture's
              diagonal, and ``distance_pixels``;
            - ``difference`` of the maps of a picture's positions, or of the rows of channels: the share of
              one that lies elsewhere than in the mean of all, 0 to 1;
            - ``mean`` of gates and weights and their ``spread``, the standard deviation over a picture's
              cells or channels;
            - ``parts``, the mean of each branch, or of each of several maps, by its name, and ``spread``,
              the standard deviation over its channels or cells;
            - ``between_pictures``, the standard deviation of a channel from picture to picture.
        verdict: by :data:`RULE`.
    """

    key: str
    kind: str
    values: str
    figures: dict[str, Any]
    verdict: str


@dataclass(frozen=True)
class ModuleStatistics:
    """One attention module, over all pictures.

    Attributes:
        module: its path in the model.
        scale: the learned factor of its branch; None if it has none.
        changed: share of all pixels that get another label without the attention.
        largest_change: by how much a logit changes without it, at most.
        views: what it shows.
    """

    module: str
    scale: float | None
    changed: float
    largest_change: float
    views: tuple[ViewStatistics, ...]


@dataclass(frozen=True)
class AttentionStatistics:
    """What :func:`attention_statistics` has found.

    Attributes:
        images: number of pictures.
        positions: number of positions in each.
        seed: by which they were drawn.
        modules: in the order of the model.
    """

    images: int
    positions: int
    seed: int
    modules: tuple[ModuleStatistics, ...]

    def as_dict(self) -> dict[str, Any]:
        """All figures, for JSON; what there is too little of to tell is None."""
        return _without_nan({**asdict(self), "rule": RULE})


def attention_statistics(
    model: BaseSegmentor, pictures: Iterable[Picture], *, positions: int = 32, seed: int = 0
) -> AttentionStatistics:
    """Explore some pictures, and measure each view of each module, and what the labels are without a module.

    A picture costs a forward pass, one more for each module, and a map for each position and view. The memory
    is that of one :class:`danseg.apis.Exploration`.

    Args:
        model: as for :func:`danseg.apis.explore`.
        pictures: at least one, as for :func:`danseg.apis.predict`.
        positions: how many to draw in each picture, at least 2: every pixel is equally likely.
        seed: of the draws; the n-th picture's are the same whatever comes before it.

    Raises:
        UserError: as :func:`danseg.apis.explore`.
        ValueError: there is no picture, or there are too few positions.
    """
    if positions < 2:
        raise ValueError(f"positions must be at least 2, to compare their maps, got {positions}")
    modules: dict[str, _Module] = {}
    images = 0
    for images, picture in enumerate(pictures, 1):
        exploration = explore(model, picture)
        height, width = exploration.labels.shape
        random = np.random.default_rng([seed, images])
        drawn = [
            (int(x), int(y))
            for x, y in zip(
                random.integers(0, width, positions), random.integers(0, height, positions), strict=True
            )
        ]
        for path in exploration.modules:
            modules.setdefault(path, _Module(path)).add(exploration, drawn)
    if not images:
        raise ValueError("attention_statistics takes at least one picture, got none")
    return AttentionStatistics(images, positions, seed, tuple(one.statistics() for one in modules.values()))


class _Module:
    """Counts of one module."""

    def __init__(self, path: str) -> None:
        self.path, self.largest_change = path, 0.0
        self.scale: float | None = None
        self._pixels = self._changed = 0
        self._views: dict[str, _View] = {}

    def add(self, exploration: Exploration, positions: Sequence[tuple[int, int]]) -> None:
        effect = exploration.effect(self.path)
        self.scale = effect.scale
        self.largest_change = max(self.largest_change, effect.largest_change)
        self._pixels += effect.labels.size
        self._changed += int((effect.labels != exploration.labels).sum())
        for key, view in exploration.views.items():
            if key.partition(":")[0] == self.path:
                one = self._views.setdefault(key, _View(key, view.kind, view.values))
                one.add(exploration.attention(key, positions))

    def statistics(self) -> ModuleStatistics:
        changed = self._changed / self._pixels
        views = tuple(one.statistics(self._verdict(changed)) for one in self._views.values())
        return ModuleStatistics(self.path, self.scale, changed, self.largest_change, views)

    def _verdict(self, changed: float) -> str:
        """What is to say of all its views; empty if it lives."""
        if self.scale == 0:
            return "dead: γ is 0"
        if self.largest_change == 0:
            return "dead: no logit changes without it"
        return "idle" if changed < IDLE else ""


class _View:
    """Measures of one view."""

    def __init__(self, key: str, kind: str, values: str) -> None:
        self.key, self.kind, self.values = key, kind, values
        self._measures: dict[str, list[Any]] = defaultdict(list)
        self._of_pictures: list[np.ndarray] = []  # of gates and branches: what a picture's channels get
        self._parts: tuple[str, ...] = ()

    def add(self, shown: AttentionMaps | AttentionWeights) -> None:
        self._parts = shown.parts
        if isinstance(shown, AttentionMaps):
            rows = shown.rows.reshape(len(shown.rows), -1)
        else:
            rows = shown.weights
        if self.kind == "branches":
            self._add_branches(rows)
        elif self.values == "gate" or (self.kind != "position" and self.values == "weights"):
            means = dict(parts=rows.mean(axis=1)) if len(self._parts) > 1 else dict(mean=rows.mean())
            self._add(**means, spread=rows.std(axis=1).mean())
            if isinstance(shown, AttentionWeights):
                self._of_pictures.append(rows)
        else:
            shares = as_shares(rows)
            of_rows = entropy(shares)
            self._add(entropy=of_rows.mean(), entropy_spread=of_rows.std())
            if isinstance(shown, AttentionWeights) or shown.positions:
                self._add(difference=difference(shares))
            if isinstance(shown, AttentionMaps) and shown.positions:
                self._add_distance(shown, shares)

    def _add_branches(self, rows: np.ndarray) -> None:
        self._of_pictures.append(rows)
        self._add(parts=rows.mean(axis=1), spread=rows.std(axis=1).mean())
        if self.values == "shares":
            self._add(entropy=entropy(as_shares(rows.T)).mean())

    def _add_distance(self, maps: AttentionMaps, shares: np.ndarray) -> None:
        ys, xs = maps.placement.centres((maps.rows.shape[1], maps.rows.shape[2]))
        grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
        pixels = mean_distance(shares, grid, np.array(maps.positions) + 0.5).mean()
        self._add(distance=pixels / np.hypot(*maps.placement.image_size), distance_pixels=pixels)

    def _add(self, **measures: Any) -> None:
        for name, value in measures.items():
            self._measures[name].append(value)

    def statistics(self, verdict: str) -> ViewStatistics:
        figures: dict[str, Any] = {
            name: float(np.mean(values)) for name, values in self._measures.items() if name != "parts"
        }
        if "parts" in self._measures:
            of_parts = np.mean(self._measures["parts"], axis=0)
            names = self._parts or tuple(str(number) for number in range(1, len(of_parts) + 1))
            figures["parts"] = {name: float(one) for name, one in zip(names, of_parts, strict=True)}
        if self._of_pictures:
            several = len(self._of_pictures) > 1
            spread = np.std(self._of_pictures, axis=0).mean() if several else float("nan")
            figures["between_pictures"] = float(spread)
        return ViewStatistics(self.key, self.kind, self.values, figures, verdict or _verdict_on(figures))


def _verdict_on(figures: dict[str, Any]) -> str:
    """What the figures of a view say about it, where its module lives."""
    if figures.get("entropy", 0) >= FLAT:
        return "flat"
    if figures.get("difference", 1) < ALIKE and "distance" in figures:
        return "the same from everywhere"
    spreads = [figures[name] for name in ("spread", "between_pictures") if name in figures]
    if spreads and np.nanmax(spreads) < ALIKE:
        return "constant"
    return "alive"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
