"""Polygons and other regions to a map of classes, by COCO's own rasteriser for all forms of annotation.

Coordinates are (x, y) in pixels, where the first pixel reaches from 0 to 1. A pixel is inside where its
centre is, to half a pixel at slanted sides.
"""

import dataclasses
import importlib.util
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from danseg.errors import UserError
from danseg.io.words import shortened

_CIRCLE_CORNERS = 128


@dataclasses.dataclass(frozen=True)
class Region:
    """A labelled part of an image.

    Attributes:
        label: its label.
        polygons: corners x0, y0, x1, y1, ... of each of its parts, which are united.
        mask: or the region itself, (H, W) bool, at ``place``, (y, x) of its upper left corner.
        place: of the mask.
        rle: or COCO's run-length code of the whole image.
    """

    label: str
    polygons: tuple[tuple[float, ...], ...] = ()
    mask: np.ndarray | None = None
    place: tuple[int, int] = (0, 0)
    rle: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Annotated:
    """An image's regions, those above others last.

    Attributes:
        name: of the image, without its suffix, to pair it by.
        source: the file that says so, for messages.
        size: height and width that the annotation gives.
        regions: the regions.
    """

    name: str
    source: str
    size: tuple[int, int]
    regions: tuple[Region, ...]


def require_pycocotools(what: str) -> None:
    """Raise an error if what rasterises is not installed."""
    if importlib.util.find_spec("pycocotools") is None:
        raise UserError(f"{what} holds polygons, which pycocotools draws: pip install 'danseg[polygons]'")


def rasterised(annotated: Annotated, table: Mapping[str, int], outside: int) -> np.ndarray:
    """The class of each pixel, (H, W) uint8; later regions lie above earlier ones.

    Args:
        annotated: an image's regions.
        table: the class of each label.
        outside: the class of pixels outside of all regions.
    """
    classes = np.full(annotated.size, outside, np.uint8)
    for region in annotated.regions:
        classes[pixels_of(region, annotated.size)] = table[region.label]
    return classes


def pixels_of(region: Region, size: tuple[int, int]) -> np.ndarray:
    """Which pixels of an image a region covers, (H, W) bool."""
    if region.mask is not None:
        covered = np.zeros(size, bool)
        y, x = region.place
        height, width = region.mask.shape
        covered[y : y + height, x : x + width] = region.mask
        return covered
    from pycocotools import mask as coco_mask

    return coco_mask.decode(_run_lengths_of(region, size)).astype(bool)


def area_of(region: Region, size: tuple[int, int]) -> int:
    """The number of an image's pixels that a region without ``mask`` covers."""
    from pycocotools import mask as coco_mask

    return int(coco_mask.area(_run_lengths_of(region, size)))


def _run_lengths_of(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    from pycocotools import mask as coco_mask

    return region.rle or coco_mask.merge(coco_mask.frPyObjects([*map(list, region.polygons)], *size))


def corners(value: Any, size: tuple[int, int], where: str) -> tuple[float, ...]:
    """The coordinates x0, y0, x1, y1, ... of a polygon, checked; () if they are fewer than three corners.

    Args:
        value: the coordinates, flat.
        size: height and width of the image; corners may lie outside of it, but no farther than its own size.
        where: what to call the polygon in messages.

    Raises:
        UserError: they are no coordinates, or lie far outside of the image.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) % 2:
        raise UserError(f"{where}: {shortened(value)} are no corners x, y of a polygon")
    numbers = tuple(number(one, where) for one in value)
    height, width = size
    for x, y in zip(numbers[::2], numbers[1::2], strict=True):
        if not (-width <= x <= 2 * width and -height <= y <= 2 * height):
            raise UserError(
                f"{where}: the corner {x:g}, {y:g} lies far outside of the image, {height} pixels high and "
                f"{width} wide; are the coordinates those of this image, in pixels?"
            )
    return numbers if len(numbers) >= 6 else ()


def number(value: Any, where: str) -> float:
    """A finite number from an annotation.

    Raises:
        UserError: it is none.
    """
    try:
        found = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise UserError(f"{where}: {shortened(value)} is no number; mend or remove it")
    return found


def side(value: Any, where: str) -> int:
    """A height or width from an annotation.

    Raises:
        UserError: it is no whole number of pixels.
    """
    found = number(value, where)
    if found != int(found) or not 1 <= found <= 2**20:
        raise UserError(f"{where}: {shortened(value)} is no height or width in pixels")
    return int(found)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0) -> list[float]:
    """The corners of a polygon that is an ellipse, turned clockwise by ``degrees``, as image axes turn."""
    angles = np.arange(_CIRCLE_CORNERS) / _CIRCLE_CORNERS * 2 * np.pi
    return turned(zip(radius_x * np.cos(angles), radius_y * np.sin(angles), strict=True), x, y, degrees)


def turned(points: Iterable[tuple[float, float]], x: float, y: float, degrees: float) -> list[float]:
    """Points around a centre, turned clockwise about it, as flat coordinates of the image."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [one for dx, dy in points for one in (x + dx * cos - dy * sin, y + dx * sin + dy * cos)]
