"""Annotations by CVAT, exported as "CVAT for images 1.1": one XML file for all images.

Shapes with a higher ``z_order`` lie above others, and later ones above earlier ones.
"""

from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

import numpy as np

from danseg.datasets.own.rasterising import Annotated, Region, corners, ellipse, number, side, turned
from danseg.errors import UserError
from danseg.io.words import shortened
from danseg.io.xml_file import parsed_xml

_NO_AREA = ("polyline", "points", "tag", "cuboid", "skeleton")
_SHAPES = ("polygon", "box", "ellipse", "mask")


def read_cvat(path: Path, data: bytes) -> tuple[list[Annotated], list[str], int]:
    """The shapes of each image, the labels in the order of the task, and how many shapes have no area.

    Args:
        path: the file.
        data: its bytes.

    Raises:
        UserError: it is no XML, or not of this form, or a shape is not right.
    """
    root = parsed_xml(path, data)
    if root.tag != "annotations" or root.find("track") is not None:
        raise UserError(
            f"{path} is not CVAT's form for images: export the task as 'CVAT for images 1.1' (not for video)"
        )
    images, left_out = [], 0
    for place, image in enumerate(root.iter("image"), 1):
        where = f"{path}, image {place}"
        name = image.get("name")
        if not name:
            raise UserError(f"{where}: it has no name")
        size = (side(image.get("height"), f"{where}: height"), side(image.get("width"), f"{where}: width"))
        regions = []
        for shape in image:
            if shape.tag in _NO_AREA:
                left_out += 1
                continue
            region = _region(shape, size, f"{where} ({name}), {shape.tag} {shape.get('label')}")
            left_out += region is None
            regions += [(number(shape.get("z_order", "0"), where), region)] if region else []
        regions.sort(key=lambda one: one[0])
        stem = str(PurePosixPath(name.replace("\\", "/")).with_suffix(""))
        images.append(Annotated(stem, f"{path}, {name}", size, tuple(region for _, region in regions)))
    labels = [label.findtext("name") or "" for label in root.iter("label")]
    return images, [label for label in labels if label], left_out


def _region(shape: Element, size: tuple[int, int], where: str) -> Region | None:
    label = shape.get("label")
    if not label:
        raise UserError(f"{where}: it has no label")
    if shape.tag not in _SHAPES:
        raise UserError(f"{where}: read are {', '.join(_SHAPES)}, and left out {', '.join(_NO_AREA)}")
    if shape.tag == "mask":
        return _mask(shape, label, size, where)

    def value(key: str, default: str | None = None) -> float:
        return number(shape.get(key, default), f"{where}: {key}")

    if shape.tag == "polygon":
        points = (shape.get("points") or "").replace(";", ",").split(",")
        flat = [number(one, where) for one in points]
    elif shape.tag == "box":
        x0, y0, x1, y1 = (value(key) for key in ("xtl", "ytl", "xbr", "ybr"))
        x, y, w, h = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2
        flat = turned([(-w, -h), (w, -h), (w, h), (-w, h)], x, y, value("rotation", "0"))
    else:
        flat = ellipse(value("cx"), value("cy"), value("rx"), value("ry"), value("rotation", "0"))
    polygon = corners(flat, size, where)
    return Region(label, (polygon,)) if polygon else None


def _mask(shape: Element, label: str, size: tuple[int, int], where: str) -> Region:
    """Runs of pixels outside and inside by turns, row by row, in a box."""
    height, width = (side(shape.get(key), f"{where}: {key}") for key in ("height", "width"))
    top, left = (int(number(shape.get(key), f"{where}: {key}")) for key in ("top", "left"))
    try:
        runs = [int(one) for one in (shape.get("rle") or "").split(",")]
    except ValueError as error:
        raise UserError(f"{where}: rle is {shortened(shape.get('rle'))}, no list of runs") from error
    fits = 0 <= top <= size[0] - height and 0 <= left <= size[1] - width
    if min(runs) < 0 or sum(runs) != height * width or not fits:
        raise UserError(f"{where}: its runs do not fill its box, or this does not lie in the image")
    inside = np.arange(len(runs)) % 2 == 1
    return Region(label, mask=np.repeat(inside, runs).reshape(height, width), place=(top, left))
