"""Annotations by LabelMe: a JSON file an image, in which later shapes lie above earlier ones."""

import base64
import binascii
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from danseg.datasets.own.rasterising import Annotated, Region, corners, ellipse, number, side
from danseg.errors import UserError
from danseg.io.images import decode_whole
from danseg.io.words import shortened

NO_AREA = ("line", "linestrip", "point", "points")


def is_labelme(content: Any) -> bool:
    """Whether a JSON file's content is of LabelMe's form."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read_labelme(name: str, path: Path, content: Mapping[str, Any]) -> tuple[Annotated, int]:
    """The shapes of one file, and how many shapes have no area and are left out.

    Args:
        name: the file's, to pair it by.
        path: the file.
        content: what it holds.

    Raises:
        UserError: it lacks something, or a shape is not right.
    """
    size = tuple(side(content.get(key), f"{path}: {key}") for key in ("imageHeight", "imageWidth"))
    regions, left_out = [], 0
    for place, shape in enumerate(content["shapes"], 1):
        where = f"{path}, shape {place}"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"]:
            raise UserError(f"{where}: it has no label; name its class")
        region = _region(shape, (size[0], size[1]), f"{where} ({shape['label']})")
        left_out += region is None
        regions += [region] if region else []
    return Annotated(name, str(path), (size[0], size[1]), tuple(regions)), left_out


def _region(shape: Mapping[str, Any], size: tuple[int, int], where: str) -> Region | None:
    kind, points = shape.get("shape_type", "polygon"), shape.get("points")
    if kind in NO_AREA:
        return None
    if not isinstance(points, list) or not all(isinstance(one, list) and len(one) == 2 for one in points):
        raise UserError(f"{where}: points is {shortened(points)}; it should be a list of [x, y]")
    flat = [number(one, where) for point in points for one in point]
    if kind == "mask":
        return _mask(shape, flat, size, where)
    if kind in ("rectangle", "circle") and len(flat) == 4:
        x0, y0, x1, y1 = flat
        radius = math.hypot(x1 - x0, y1 - y0)
        flat = [x0, y0, x1, y0, x1, y1, x0, y1] if kind == "rectangle" else ellipse(x0, y0, radius, radius)
    elif kind not in ("polygon", "rectangle"):
        raise UserError(
            f"{where}: shape_type is {shortened(kind)} with {len(flat) // 2} points; read are polygon, "
            f"rectangle, circle and mask, and left out {', '.join(NO_AREA)}"
        )
    polygon = corners(flat, size, where)
    return Region(shape["label"], (polygon,)) if polygon else None


def _mask(shape: Mapping[str, Any], flat: list[float], size: tuple[int, int], where: str) -> Region:
    """A mask in base64 with the first and the last pixel that it covers."""
    try:
        image = decode_whole(base64.b64decode(str(shape.get("mask")), validate=True))
    except (binascii.Error, ValueError) as error:
        raise UserError(f"{where}: its mask cannot be decoded: {error}") from error
    mask = np.asarray(image.convert("L")) > 0
    x, y = (int(one) for one in flat[:2]) if len(flat) == 4 else (-1, -1)
    if min(x, y) < 0 or y + mask.shape[0] > size[0] or x + mask.shape[1] > size[1]:
        raise UserError(f"{where}: its mask of {mask.shape[0]}x{mask.shape[1]} does not lie in the image")
    return Region(shape["label"], mask=mask, place=(y, x))
