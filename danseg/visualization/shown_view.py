"""What the views of recorded modules are called, and what one of them shows of a picture."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from danseg.attention.parts.views import MAPS, View
from danseg.visualization.attention_recording import RecordedAttention
from danseg.visualization.shown_attention import AttentionMaps, AttentionWeights, Placement

MOST_VIEWS = 8  # that a figure shows unasked


def view_keys(recorded: Mapping[str, RecordedAttention]) -> dict[str, tuple[str, View]]:
    """What can be shown: a module's path and its view, by ``"PATH:NAME"``, or the path for its first view."""
    return {
        f"{path}:{name}" if name else path: (path, view)
        for path, one in recorded.items()
        for name, view in one.views.items()
    }


def usual_views(keys: Iterable[str]) -> list[str]:
    """Those that a figure shows unasked: the first eight of the head, or of all if the head has none."""
    keys = list(keys)
    return ([key for key in keys if key.startswith("decode_head")] or keys)[:MOST_VIEWS]


def shown_view(
    path: str,
    recorded: RecordedAttention,
    name: str,
    positions: Sequence[tuple[int, int]],
    placement: Placement,
) -> AttentionMaps | AttentionWeights:
    """What a view shows of the first picture that its module was recorded with.

    Args:
        path: the module's, in the model.
        recorded: the module.
        name: the view's.
        positions: pairs (x, y) in pixels of the picture; a view of another kind than ``"position"`` ignores
            them.
        placement: how the picture lies in the network's input.

    Raises:
        ValueError: a position lies outside the picture.
    """
    view = recorded.views[name]
    places = [(x, y) for x, y in positions] if view.kind == "position" else []
    cells = [placement.cell(place, recorded.map_size) for place in places]
    # A copy, which may be written into: some of what a view shows is kept.
    shown = recorded.show(cells, name)[0].to("cpu", torch.float32, copy=True).numpy()
    about: dict[str, Any] = dict(view=name, values=view.values, parts=view.parts, scale=recorded.scale)
    if view.kind in MAPS:
        return AttentionMaps(path, places, shown, placement, **about)
    return AttentionWeights(path, shown, view.kind, **about)


def placement_of(data: Mapping[str, Any]) -> Placement:
    """Where mmseg put the first image of a batch, from what the data preprocessor gives for it."""
    height, width = data["inputs"].shape[-2:]
    meta = data["data_samples"][0].metainfo
    left, _, top, _ = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    return Placement(
        image_size=tuple(meta["ori_shape"][:2]),
        input_size=(height, width),
        content_size=tuple(meta["img_shape"][:2]),
        offset=(top, left),
    )
