"""What a page lets its visitors take along of what they see: a figure, and numbers."""

import io
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from danseg.apis import Exploration
from danseg.apis.explore_files import arrays, known_channels
from danseg.app.page_answers import as_numbers, as_position
from danseg.io.images import encode_image
from danseg.visualization import overview_figure
from danseg.visualization.page import pixels

_DRAWING = threading.Lock()  # matplotlib draws in one thread at a time


def figure_png(explorations: Sequence[Exploration], names: Sequence[str], asked: Mapping[str, str]) -> bytes:
    """The figure of ``danseg explore``, for each network one below the other.

    Args:
        explorations: of a picture, one of each network.
        names: of the networks.
        asked: the parameters x, y, and for each network its view.

    Raises:
        UserError: one of them is not there.
    """
    figures = []
    for number, (exploration, name) in enumerate(zip(explorations, names, strict=True)):
        key, position = _asked(exploration, number, asked)
        channels = known_channels(exploration, key, [position])
        with _DRAWING:
            figure = overview_figure(
                exploration.image,
                None,
                exploration.labels,
                [exploration.attention(key, [position])],
                classes=exploration.classes,
                palette=exploration.palette,
                name=name,
                channels={key: channels} if channels else {},
            )
            figures.append(pixels(figure))
    widest = max(one.shape[1] for one in figures)
    padded = [
        np.pad(one, ((0, 0), (0, widest - one.shape[1]), (0, 0)), constant_values=255) for one in figures
    ]
    return encode_image(np.concatenate(padded), ".png")


def numbers_npz(explorations: Sequence[Exploration], names: Sequence[str], asked: Mapping[str, str]) -> bytes:
    """The numbers of ``danseg explore``; of several networks, the names of arrays begin with 0/, 1/, ...

    Args:
        explorations, names, asked: as for :func:`figure_png`; names are those of ``networks`` in the file.
    """
    found: dict[str, Any] = {"networks": np.array(names)}
    for number, exploration in enumerate(explorations):
        key, position = _asked(exploration, number, asked)
        prefix = f"{number}/" if len(explorations) > 1 else ""
        found |= {f"{prefix}{name}": value for name, value in arrays(exploration, [key], [position]).items()}
    with io.BytesIO() as file:
        np.savez_compressed(file, **found)
        return file.getvalue()


def _asked(exploration: Exploration, number: int, asked: Mapping[str, str]) -> tuple[str, tuple[int, int]]:
    position = as_position(*as_numbers(asked.get("x"), asked.get("y")), exploration)
    key = asked.get(f"view{number or ''}", "")
    exploration.attention(key, [position])  # which refuses a view that is not there
    return key, position
