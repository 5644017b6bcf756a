"""Draw the attention of a position that moves along a path."""

from collections.abc import Iterator, Sequence

import numpy as np

from danseg.apis.exploration import Exploration
from danseg.visualization import AttentionMaps
from danseg.visualization.attention_figure import Maps, Scale, scale_of
from danseg.visualization.page import pixels, stacked

MILLISECONDS = 125  # of a frame


def along(path: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Pixels (x, y) at equal distances along straight lines from point to point, both ends among them."""
    points = np.array(path, float)
    steps = np.hypot(*np.diff(points, axis=0).T)
    reached = np.concatenate([[0], np.cumsum(steps)])
    wanted = np.linspace(0, reached[-1], count)
    x, y = (np.interp(wanted, reached, points[:, axis]).round().astype(int) for axis in (0, 1))
    return list(zip(x.tolist(), y.tolist(), strict=True))


def animation(
    exploration: Exploration,
    keys: Sequence[str],
    positions: Sequence[tuple[int, int]],
    same_scale: bool = False,
) -> Iterator[np.ndarray]:
    """One picture (H, W, 3) uint8 for each position: the maps of the views below each other.

    Args:
        exploration: of the picture.
        keys: views of kind ``"position"``.
        positions: pairs (x, y) in pixels.
        same_scale: each view has the scale of all its frames; else each frame has its own.
    """
    shown = {key: exploration.attention(key, positions) for key in keys}
    scales: dict[str, Scale | None] = dict.fromkeys(keys)
    for key, maps in shown.items():
        assert isinstance(maps, AttentionMaps)
        if same_scale:  # a frame at a time: enlarged, those of a large picture take gigabytes
            enlarged = (one.over_image() for one in _frames(maps))
            scales[key] = scale_of(maps.values, *(np.array([one.min(), one.max()]) for one in enlarged))
    for frames in zip(*(_frames(maps) for maps in shown.values()), strict=True):  # type: ignore[arg-type]
        parts = [
            Maps(exploration.image, frame, exploration.labels, exploration.classes, scales[key])
            for key, frame in zip(keys, frames, strict=True)
        ]
        yield pixels(stacked(1, parts))


def _frames(maps: AttentionMaps) -> Iterator[AttentionMaps]:
    """The maps of each position alone."""
    for place, rows in zip(maps.positions, maps.rows, strict=True):
        yield AttentionMaps(
            maps.module, [place], rows[None], maps.placement, maps.scale, maps.view, maps.values, maps.parts
        )
