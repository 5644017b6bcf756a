"""Small sets as users have them: pictures of red discs and blue boxes on grey noise, labelled in many ways.

Each function writes a set below ``folder`` and gives the true class of each pixel, by the image's path
relative to the folder of images, without its suffix. The classes are learnt in seconds.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

NAMES = ("ground", "disc", "box")
COLOURS = ((90, 90, 90), (220, 20, 60), (0, 0, 142))  # in masks of colours
_PAINT = ((110, 110, 110), (200, 60, 60), (60, 60, 200))  # in the pictures
SIZE = (96, 128)


class Shape(NamedTuple):
    """A polygon: its class, and (N, 2) corners (x, y), where pixel 0 reaches from 0 to 1."""

    number: int
    corners: np.ndarray


def inside(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Which pixels have their centre in a polygon, (H, W) bool, by how often a ray crosses its sides."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    odd = np.zeros((height, width), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            odd ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return odd


def scene(number: int, height: int = SIZE[0], width: int = SIZE[1]) -> list[Shape]:
    """Some shapes, later ones above earlier ones; the same for the same number."""
    random = np.random.default_rng(number)
    shapes = []
    for kind in (1, 2, 1, 2):
        x, y = random.integers(16, width - 16), random.integers(16, height - 16)
        if kind == 1:
            angles = np.arange(12) / 6 * np.pi
            radius = random.integers(12, 22)
            corners = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1).round(2)
        else:
            w, h = random.integers(9, 16, 2)
            corners = np.array([(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)], float)
        shapes.append(Shape(kind, np.clip(corners, 0, (width, height))))
    return shapes


def drawn(shapes: Sequence[Shape], height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    """The class of each pixel, (H, W) uint8; 0 outside of all shapes."""
    ids = np.zeros((height, width), np.uint8)
    for shape in shapes:
        ids[inside(shape.corners, height, width)] = shape.number
    return ids


def painted(ids: np.ndarray, number: int) -> np.ndarray:
    """A picture of the classes, (H, W, 3) uint8, with noise."""
    noise = np.random.default_rng(number).normal(0, 12, (*ids.shape, 3))
    return np.clip(np.array(_PAINT, float)[ids] + noise, 0, 255).astype(np.uint8)


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def ids_set(folder: Path, count: int = 40) -> dict[str, np.ndarray]:
    """images/*.jpg and masks/*.png of ids 0 to 2, with a frame of 255."""
    true = {}
    for number in range(count):
        ids, name = drawn(scene(number)), f"{number:03}"
        save(painted(ids, number), folder / f"images/{name}.jpg")
        ids[:2] = ids[-2:] = 255
        save(ids, folder / f"masks/{name}.png")
        true[name] = ids
    return true


def binary_set(folder: Path, count: int = 40) -> dict[str, np.ndarray]:
    """images/*.png and masks/*.png of 0 and 255, where 255 is any shape; the truth is 0 and 1."""
    true = {}
    for number in range(count):
        ids, name = drawn(scene(number)), f"{number:03}"
        save(painted(ids, number), folder / f"images/{name}.png")
        true[name] = (ids > 0).astype(np.uint8)
        save(true[name] * 255, folder / f"masks/{name}.png")
    return true


def colour_set(folder: Path, count: int = 40) -> dict[str, np.ndarray]:
    """images/{day,night}/* of several sizes and suffixes; masks/{day,night}/*_mask.png of COLOURS.

    Beside them colours.csv, which names each colour.
    """
    true = {}
    for number in range(count):
        height, width = SIZE[0] + 8 * (number % 3), SIZE[1] - 16 * (number % 2)
        ids = drawn(scene(number, height, width), height, width)
        name = f"{('day', 'night')[number % 2]}/{number:03}"
        save(painted(ids, number), folder / f"images/{name}.{('png', 'jpg', 'jpeg')[number % 3]}")
        save(np.array(COLOURS, np.uint8)[ids], folder / f"masks/{name}_mask.png")
        true[name] = ids
    lines = [f"{name},{','.join(map(str, colour))}\n" for name, colour in zip(NAMES, COLOURS, strict=True)]
    (folder / "colours.csv").write_text("".join(lines))
    return true


def _pictures(folder: Path, count: int) -> dict[str, np.ndarray]:
    true = {f"{number:03}": drawn(scene(number)) for number in range(count)}
    for number, (name, ids) in enumerate(true.items()):
        save(painted(ids, number), folder / f"images/{name}.jpg")
    return true


def labelme_set(folder: Path, count: int = 40) -> dict[str, np.ndarray]:
    """images/*.jpg and labels/*.json as LabelMe writes them."""
    true = _pictures(folder, count)
    (folder / "labels").mkdir()
    for number, name in enumerate(true):
        shapes = [
            dict(
                label=NAMES[shape.number],
                points=shape.corners.tolist(),
                shape_type="polygon",
                group_id=None,
                flags={},
            )
            for shape in scene(number)
        ]
        content = dict(version="5.4.1", flags={}, shapes=shapes, imagePath=f"../images/{name}.jpg")
        content |= dict(imageData=None, imageHeight=SIZE[0], imageWidth=SIZE[1])
        (folder / f"labels/{name}.json").write_text(json.dumps(content))
    return true


def coco_set(folder: Path, count: int = 40) -> dict[str, np.ndarray]:
    """images/*.jpg and instances.json as COCO has it. The truth has smaller shapes above larger ones."""
    true = _pictures(folder, count)
    images, annotations = [], []
    for number, name in enumerate(true):
        images.append(dict(id=10 + number, file_name=f"{name}.jpg", height=SIZE[0], width=SIZE[1]))
        areas = [int(inside(shape.corners, *SIZE).sum()) for shape in scene(number)]
        for shape, area in zip(scene(number), areas, strict=True):
            polygon = shape.corners.ravel().tolist()
            one = dict(id=len(annotations) + 1, image_id=10 + number, category_id=5 * shape.number)
            annotations.append(one | dict(segmentation=[polygon], area=area, iscrowd=0, bbox=[0, 0, 1, 1]))
        order = np.argsort([-area for area in areas], kind="stable")
        true[name] = drawn([scene(number)[place] for place in order])
        save(painted(true[name], number), folder / f"images/{name}.jpg")
    categories = [dict(id=5 * number, name=NAMES[number]) for number in (1, 2)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / "instances.json").write_text(json.dumps(content))
    return true


def cvat_set(folder: Path, count: int = 40) -> dict[str, np.ndarray]:
    """images/*.jpg and annotations.xml, CVAT for images 1.1."""
    true = _pictures(folder, count)
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "<version>1.1</version>"]
    for number, name in enumerate(true):
        lines.append(f'<image id="{number}" name="{name}.jpg" width="{SIZE[1]}" height="{SIZE[0]}">')
        for order, shape in enumerate(scene(number)):
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in shape.corners)
            label = NAMES[shape.number]
            lines.append(
                f'<polygon label="{label}" occluded="0" points="{points}" z_order="{order}"></polygon>'
            )
        lines.append("</image>")
    (folder / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))
    return true


def voc_set(folder: Path, count: int = 40) -> dict[str, np.ndarray]:
    """JPEGImages/*.jpg and SegmentationClass/*.png in the colours of labelmap.txt, with VOC's border."""
    true = {}
    for number in range(count):
        ids, name = drawn(scene(number)), f"{number:03}"
        save(painted(ids, number), folder / f"JPEGImages/{name}.jpg")
        colours = np.array(COLOURS, np.uint8)[ids]
        colours[:, :2] = (224, 224, 192)
        ids[:, :2] = 255
        save(colours, folder / f"SegmentationClass/{name}.png")
        true[name] = ids
    lines = [f"{name}:{','.join(map(str, colour))}::\n" for name, colour in zip(NAMES, COLOURS, strict=True)]
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "".join(lines))
    return true
