"""What a page shows of an exploration: pictures as data, sentences, and tables; texts are escaped."""

import base64
import html
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from matplotlib.colors import to_hex

from danseg.apis import AttentionEffect, Exploration, Prediction
from danseg.apis.explore_files import known_channels
from danseg.errors import UserError
from danseg.io.images import encode_image
from danseg.visualization import AttentionMaps, AttentionWeights
from danseg.visualization.attention_figure import UNITS, heading_of, scale_of
from danseg.visualization.weights_figure import Channels

SHOWN, HEAT = 1024, 512  # pixels of the longest side of a picture as it is shown, and of a map over it
FIRST = 3  # classes whose probabilities are told
BARS = 12  # channels that are shown
UNITS_OF_WEIGHTS = {"shares": "shares", "gate": "gates", "weights": "weights"}
_STOPS = 9  # colours of a map's bar, between which a browser mixes
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
    """A list of the classes that occur, the largest first, with the share that each takes of the picture."""
    areas = Prediction(
        exploration.labels, exploration.image, exploration.classes, exploration.palette
    ).areas()
    found = sorted(
        (-area.pixels, name, area.share, colour)
        for (name, area), colour in zip(areas.items(), exploration.palette, strict=False)
        if area.pixels
    )
    entries = "".join(
        f'<li><span class="danseg-swatch" style="background:rgb{tuple(map(int, colour))}"></span>'
        f"<span>{html.escape(name)}</span><span>{share:.1%}</span></li>"
        for _, name, share, colour in found
    )
    return f'<ul class="danseg-legend" aria-label="Classes and their areas">{entries}</ul>'


def classed(exploration: Exploration, position: tuple[int, int]) -> str:
    """What a pixel was classed as, with the first three probabilities."""
    x, y = position
    probabilities = exploration.probabilities(position)
    first = np.argsort(-probabilities, kind="stable")[:FIRST]
    listed = ", ".join(f"{exploration.classes[one]} {probabilities[one]:.1%}" for one in first)
    name = exploration.classes[exploration.labels[y, x]]
    return f"<strong>{html.escape(name)}</strong> at x = {x}, y = {y} ({html.escape(listed)})"


def parts_of(exploration: Exploration, key: str) -> list[str]:
    """The names of a view's maps, if there are several to choose from."""
    view = exploration.views[key]
    if view.kind != "everywhere":
        return []
    shown = exploration.attention(key)
    count = len(shown.rows) if isinstance(shown, AttentionMaps) else 1
    return list(view.parts) or [f"map {number}" for number in range(1, count + 1)] if count > 1 else []


def looking(exploration: Exploration, key: str, part: int, position: tuple[int, int]) -> dict[str, Any]:
    """What a view shows, as a picture with its caption.

    Args:
        exploration: of the picture.
        key: one of its views.
        part: which of the view's maps, if it is the same for all positions.
        position: (x, y) of the picture.

    Raises:
        UserError: there is no such view, or the position lies outside the picture.
    """
    shown = exploration.attention(key, [position])
    if isinstance(shown, AttentionMaps):
        return _map(exploration, shown, 0 if shown.positions else part)
    return _weights(exploration, key, shown, position)


def _weights(
    exploration: Exploration, key: str, shown: AttentionWeights, position: tuple[int, int]
) -> dict[str, Any]:
    """Branches by their mean share; of channels those with the largest weights."""
    order: np.ndarray
    if shown.kind == "branches":
        values = np.asarray(shown.weights.mean(axis=1))
        names = list(shown.parts) or [f"branch {number}" for number in range(1, len(values) + 1)]
        order, what = (
            np.arange(len(values)),
            f"{UNITS_OF_WEIGHTS[shown.values]} of branches, mean over channels",
        )
    else:
        channels = known_channels(exploration, key, [position]) or Channels()
        row = next(iter(channels.rows), 0)
        values = shown.weights[row]
        names = [channels.named(number) for number in range(len(values))]
        order = np.argsort(-np.abs(values), kind="stable")[:BARS]
        what = f"{UNITS_OF_WEIGHTS[shown.values]} of channels, the largest of {len(values)}"
        if len(shown.weights) > 1:
            known = ", the strongest here," if channels.rows else ""
            what = f"from which channel {channels.named(row)}{known} gathers most"
    longest = max(float(np.abs(values).max()), 1e-12)
    return dict(
        kind=shown.kind,
        bars=[[names[one], abs(float(values[one])) / longest, f"{values[one]:.3g}"] for one in order],
        caption=f"{heading_of(shown)}: {what}.{_ignored(shown)}",
    )


def _map(exploration: Exploration, shown: AttentionMaps, part: int) -> dict[str, Any]:
    height, width = exploration.labels.shape
    reduced = min(1.0, HEAT / max(height, width))
    rows, columns = max(1, round(height * reduced)), max(1, round(width * reduced))
    one = replace(
        shown,
        rows=shown.rows[part : part + 1],
        placement=replace(shown.placement, image_size=(rows, columns)),
    )
    heat = one.over_image()[0]
    scale = scale_of(shown.values, heat)
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    x, y = int((column + 0.5) * width / columns), int((row + 0.5) * height / rows)
    where = "from here" if shown.positions else "the same from everywhere"
    unit = f" {UNITS[shown.values]}"
    most = f"x = {x}, y = {y} ({exploration.classes[exploration.labels[y, x]]})"
    return dict(
        kind="map",
        source=_data("image/png", encode_image((255 * scale.coloured(heat)).astype(np.uint8), ".png")),
        low=f"{scale.low:.3g}",
        high=f"{scale.high:.3g}{unit}",
        bar=[to_hex(one) for one in scale.colours(np.linspace(0, 1, _STOPS))],
        caption=f"{heading_of(shown)}, {where}: most at {most}, {heat.max():.3g}{unit}.{_ignored(shown)}",
    )


def _ignored(shown: AttentionMaps | AttentionWeights) -> str:
    return " γ is 0: the network ignores what this branch gathers." if shown.scale == 0 else ""


def effect_words(exploration: Exploration, effect: AttentionEffect) -> str:
    """What the attention of a module does to the picture, and to the labels of the positions."""
    said = [f"{effect.summary()}."]
    for (x, y), on, off in zip(effect.positions, effect.with_attention, effect.without, strict=True):
        before, after = (exploration.classes[labels[y, x]] for labels in (exploration.labels, effect.labels))
        one = int(exploration.labels[y, x]) if len(on) > 1 else 0
        logit = f"the logit of {exploration.classes[one if len(on) > 1 else 1]}"
        said.append(
            f"Without it, x = {x}, y = {y} {f'stays {before}' if before == after else f'becomes {after}'}: "
            f"{logit} goes from {on[one]:.3g} to {off[one]:.3g}."
        )
    if effect.changed:
        said.append("White: where the labels change.")
    return " ".join(said)


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


def as_numbers(x: Any, y: Any) -> tuple[Any, Any]:
    """Numbers of an address's texts; what is none stays, for :func:`as_position` to refuse."""
    return tuple(int(one) if isinstance(one, str) and one.isdecimal() else one for one in (x, y))  # type: ignore
