"""What a page shows of an exploration: pictures as data, sentences, and tables; texts are escaped."""

import base64
import html
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from matplotlib import colormaps

from danseg.apis import AttentionEffect, Exploration, Prediction
from danseg.errors import UserError
from danseg.io.images import encode_image
from danseg.visualization import AttentionMaps, AttentionWeights

SHOWN, HEAT = 1024, 512  # pixels of the longest side of a picture as it is shown, and of a map over it
FIRST = 3  # classes whose probabilities are told
MOST_PARTS = 512  # maps or rows of a view that can be chosen from
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 90)


def stage(exploration: Exploration, name: str) -> dict[str, Any]:
    """A picture and its labels, reduced if they are large, with what a legend needs.

    Args:
        exploration: of the picture.
        name: of the network.
    """
    height, width = exploration.labels.shape
    scale = min(1.0, SHOWN / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    rows, columns = ((np.arange(n) + 0.5) * full / n for n, full in zip(size, (height, width), strict=True))
    labels = exploration.labels[rows.astype(int)[:, None], columns.astype(int)]
    image = cv2.resize(exploration.image, size[::-1], interpolation=cv2.INTER_AREA)
    # Ids in two channels: there may be more than 256 classes.
    ids = np.stack([labels % 256, labels // 256, labels * 0], axis=2).astype(np.uint8)
    return dict(
        network=name,
        width=width,
        height=height,
        image=_data("image/jpeg", encode_image(image, ".jpg", _JPEG)),
        labels=_data("image/png", encode_image(ids, ".png")),
        classes=list(exploration.classes),
        palette=[[int(one) for one in colour] for colour in exploration.palette],
    )


def legend(exploration: Exploration) -> str:
    """A table of the classes that occur, the largest first, with the share that each takes of the picture."""
    areas = Prediction(
        exploration.labels, exploration.image, exploration.classes, exploration.palette
    ).areas()
    found = sorted(
        (-area.pixels, name, area.share, colour)
        for (name, area), colour in zip(areas.items(), exploration.palette, strict=False)
        if area.pixels
    )
    rows = "".join(
        f'<tr><td><span class="danseg-swatch" style="background:rgb{tuple(map(int, colour))}"></span></td>'
        f'<th scope="row">{html.escape(name)}</th><td class="danseg-number">{share:.1%}</td></tr>'
        for _, name, share, colour in found
    )
    return f'<table class="danseg-legend"><caption>Classes and their areas</caption>{rows}</table>'


def classed(exploration: Exploration, position: tuple[int, int]) -> str:
    """What a pixel was classed as, with the first three probabilities."""
    x, y = position
    probabilities = exploration.probabilities(position)
    first = np.argsort(-probabilities, kind="stable")[:FIRST]
    listed = ", ".join(f"{exploration.classes[one]} {probabilities[one]:.1%}" for one in first)
    name = exploration.classes[exploration.labels[y, x]]
    return f"<strong>{html.escape(name)}</strong> at x = {x}, y = {y} ({html.escape(listed)})"


def parts_of(exploration: Exploration, key: str) -> list[str]:
    """The names of a view's maps or rows, if there are several to choose from."""
    view = exploration.views[key]
    if view.kind == "position" or view.kind == "branches":
        return []
    shown = exploration.attention(key)
    rows = shown.rows if isinstance(shown, AttentionMaps) else shown.weights
    count = min(len(rows), MOST_PARTS)
    return list(view.parts[:count]) or [str(number) for number in range(count)] if count > 1 else []


def looking(exploration: Exploration, key: str, part: int, position: tuple[int, int]) -> dict[str, Any]:
    """What a view shows, as a picture with its caption.

    Args:
        exploration: of the picture.
        key: one of its views.
        part: which of the view's maps or rows, if it has several.
        position: (x, y) of the picture.

    Raises:
        UserError: there is no such view, or the position lies outside the picture.
    """
    by_position = key not in exploration.views or exploration.views[key].kind == "position"
    shown = exploration.attention(key, [position] if by_position else [])
    if isinstance(shown, AttentionMaps):
        return _map(exploration, shown, part if not by_position else 0)
    return _weights(shown, part)


def _map(exploration: Exploration, shown: AttentionMaps, part: int) -> dict[str, Any]:
    part = min(max(part, 0), len(shown.rows) - 1)
    height, width = exploration.labels.shape
    scale = min(1.0, HEAT / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    one = replace(
        shown,
        rows=shown.rows[part : part + 1],
        positions=shown.positions[part : part + 1],
        placement=replace(shown.placement, image_size=size),
        parts=(),
    )
    heat = one.over_image()[0]
    low, high = min(0.0, float(heat.min())), max(float(heat.max()), 1e-12)
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    x, y = int((column + 0.5) * width / size[1]), int((row + 0.5) * height / size[0])
    most = f"x = {x}, y = {y} ({exploration.classes[exploration.labels[y, x]]})"
    unit = {"shares": " × uniform", "gate": "", "weights": " (weight × number of cells)"}[shown.values]
    table = (255 * colormaps["inferno"](np.arange(256))).round().astype(np.uint8)
    table[:, 3] = np.linspace(0.35 * 255, 0.85 * 255, 256)
    strength = np.clip((heat - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    where = "from here" if shown.positions else "the same from everywhere"
    verb = "strongest at" if shown.values != "shares" else "most at"
    return dict(
        kind="map",
        source=_data("image/png", encode_image(table[strength], ".png")),
        low=f"{low:.3g}",
        high=f"{high:.3g}{unit}",
        caption=f"{_heading(shown)}, {where}: {verb} {most}, {high:.3g}{unit}.{_ignored(shown)}",
    )


def _weights(shown: AttentionWeights, part: int) -> dict[str, Any]:
    raise UserError("not yet")


def _heading(shown: AttentionMaps | AttentionWeights) -> str:
    scale = "" if shown.scale is None else f" (γ = {shown.scale:.3g})"
    return f"{shown.module}{f', {shown.view}' if shown.view else ''}{scale}"


def _ignored(shown: AttentionMaps | AttentionWeights) -> str:
    return " γ is 0: the network ignores what this branch gathers." if shown.scale == 0 else ""


def effect_words(exploration: Exploration, effect: AttentionEffect) -> Iterator[str]:
    """Sentences on what the attention of a module does to the picture and to one pixel."""
    scale = "" if effect.scale is None else f" (γ = {effect.scale:.3g})"
    name = html.escape(effect.module)
    if effect.changed:
        yield f"Without the attention of {name}{scale}, {effect.changed:.2%} of the pixels get another label."
    else:
        yield f"Without the attention of {name}{scale}, all labels stay the same."
    for (x, y), on, off in zip(effect.positions, effect.with_attention, effect.without, strict=True):
        before, after = exploration.labels[y, x], effect.labels[y, x]
        names = [html.escape(exploration.classes[one]) for one in (before, after)]
        logit = (on[before], off[before]) if len(on) > 1 else (on[0], off[0])
        what = f"stays {names[0]}" if before == after else f"becomes {names[1]} in the place of {names[0]}"
        of = names[0] if len(on) > 1 else html.escape(exploration.classes[1])
        yield f"The pixel {what}; its logit for {of} goes from {logit[0]:.3g} to {logit[1]:.3g}."


def changed_map(exploration: Exploration, effect: AttentionEffect) -> str:
    """Where labels change without the attention, as a picture of data: white there, transparent elsewhere."""
    height, width = exploration.labels.shape
    scale = min(1.0, SHOWN / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    changed = (effect.labels != exploration.labels).astype(np.uint8) * 255
    mask = cv2.resize(changed, size, interpolation=cv2.INTER_AREA)
    return _data("image/png", encode_image(np.dstack([mask * 0 + 255] * 3 + [mask]), ".png"))


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def as_position(x: Any, y: Any, exploration: Exploration) -> tuple[int, int]:
    """A position from numbers that a client sent.

    Raises:
        UserError: they are no numbers, or lie outside the picture.
    """
    height, width = exploration.labels.shape
    for name, value, end in (("x", x, width), ("y", y, height)):
        whole = isinstance(value, (int, float)) and float(value).is_integer()
        if not whole or not 0 <= value < end:
            raise UserError(f"{name} must be a whole number from 0 to {end - 1}, got {value!r}")
    return int(x), int(y)


def as_key(key: Any, exploration: Exploration, earlier: Sequence[str] = ()) -> str:
    """The view to show: the one that is asked for, or else the first."""
    return key if isinstance(key, str) and key in exploration.views else next(iter(exploration.views))
