"""What a :class:`danseg.apis.Segmenter` says about a picture."""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from danseg.io.images import encode_image
from danseg.io.words import listed
from danseg.visualization import overlay

# Longest side of the picture in a notebook, in pixels, and how many classes its legend names.
_SHOWN_SIDE = 640
_SHOWN_CLASSES = 20


class Area(NamedTuple):
    """What a class takes of a picture.

    Attributes:
        pixels: how many.
        share: of all pixels of the picture, 0 to 1.
    """

    pixels: int
    share: float


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The labels of a picture, with what is needed to count, draw and show them.

    In a notebook it shows itself: the overlay, reduced, and the classes that occur.

    Attributes:
        labels: (H, W) int64 class ids, those of :func:`danseg.apis.predict`.
        image: (H, W, 3) uint8 RGB, the picture as :func:`danseg.apis.read_picture` gives it.
        classes: names by class id.
        palette: one (red, green, blue) a class.
        probabilities: (C, H, W) float32 by class id, the softmax of the network's logits; each pixel's sum
            to 1. None unless they were asked for. Where two classes tie within rounding, the label may be the
            other of the two.
    """

    labels: np.ndarray
    image: np.ndarray
    classes: tuple[str, ...]
    palette: Sequence[Sequence[int]]
    probabilities: np.ndarray | None = None

    def areas(self) -> dict[str, Area]:
        """Pixels and share of each class by its name, in the order of the ids; 0 for absent ones."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return {
            name: Area(int(count), int(count) / self.labels.size)
            for name, count in zip(self.classes, counts, strict=False)  # ids without a name are no class
        }

    def overlay(self, opacity: float = 0.5) -> np.ndarray:
        """The classes' colours over the picture: :func:`danseg.visualization.overlay`."""
        return overlay(self.image, self.labels, self.palette, opacity)

    def _present(self) -> list[tuple[int, str]]:
        """Ids and words for the classes that occur, the largest first."""
        areas = enumerate(self.areas().items())
        found = sorted(
            (-area.pixels, id, f"{name} {area.share:.1%}") for id, (name, area) in areas if area.pixels
        )
        return [(id, text) for _, id, text in found]

    def __repr__(self) -> str:
        height, width = self.labels.shape
        return f"Prediction({width}x{height}: {listed(text for _, text in self._present())})"

    def _repr_html_(self) -> str:
        present = self._present()
        height, width = self.labels.shape
        scale = min(1.0, _SHOWN_SIDE / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        rows, columns = (
            (np.arange(n) + 0.5) * full / n for n, full in zip(size, (height, width), strict=True)
        )
        labels = self.labels[rows.astype(int)[:, None], columns.astype(int)]
        image = cv2.resize(self.image, size[::-1], interpolation=cv2.INTER_AREA)
        picture = encode_image(overlay(image, labels, self.palette), ".jpg")
        source = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
        shown = [(self.palette[id], text) for id, text in present[:_SHOWN_CLASSES]]
        more = len(present) - len(shown)
        return (
            f'<div><img src="{source}" alt="{html.escape(repr(self))}"><br>'
            f"{legend_html(shown)}{f'and {more} more' if more else ''}</div>"
        )


def legend_html(entries: Iterable[tuple[Sequence[int], str]]) -> str:
    """Pairs of a colour and a text as HTML, side by side; texts are escaped."""
    return "".join(
        '<span style="display:inline-block;margin-right:1em">'
        f'<span style="display:inline-block;width:.8em;height:.8em;background:rgb{tuple(map(int, colour))}">'
        f"</span> {html.escape(text)}</span>"
        for colour, text in entries
    )
