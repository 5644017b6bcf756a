"""Annotations in COCO's form: one JSON file for all images. Smaller regions lie above larger ones."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from danseg.datasets.own.rasterising import Annotated, Region, area_of, corners, number, side
from danseg.errors import UserError
from danseg.io.words import listed, shortened

_LISTS = ("images", "annotations", "categories")
_CODE = re.compile("[0-o]*[0-O]")  # COCO's text of run lengths: characters 48 to 111, the last without bit 32


def is_coco(content: Any) -> bool:
    """Whether a JSON file's content is of COCO's form."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _LISTS)


def read_coco(path: Path, content: Mapping[str, Any]) -> tuple[list[Annotated], list[str], int]:
    """The regions of each image, the categories in the order of their ids, and how many lack a region.

    Args:
        path: the file.
        content: what it holds.

    Raises:
        UserError: something is missing, or a region is not right.
    """
    names = _categories(path, content["categories"])
    of_image = defaultdict(list)
    for place, annotation in enumerate(content["annotations"], 1):
        where = f"{path}, annotation {place}"
        if isinstance(annotation, dict) and "segments_info" in annotation:
            raise UserError(f"{where}: COCO's panoptic form is not read; give its form of instances")
        of_image[_value(annotation, "image_id", (int, str), where)].append((where, annotation))
    images, left_out, seen = [], 0, set()
    for place, image in enumerate(content["images"], 1):
        where = f"{path}, image {place}"
        one, file = _value(image, "id", (int, str), where), _value(image, "file_name", (str,), where)
        if one in seen:
            raise UserError(f"{where}: the id {one!r} is another image's too; give each its own")
        seen.add(one)
        size = (side(image.get("height"), f"{where}: height"), side(image.get("width"), f"{where}: width"))
        regions = []
        for place_said, annotation in of_image.get(one, ()):
            category = _value(annotation, "category_id", (int, str), place_said)
            if category not in names:
                known = listed(f"{key} {name}" for key, name in names.items())
                raise UserError(f"{place_said}: category_id {category!r} is none of the categories, {known}")
            region = _region(names[category], annotation.get("segmentation"), size, place_said)
            left_out += region is None
            regions += [region] if region else []
        areas = {id(region): area_of(region, size) for region in regions}
        regions.sort(key=lambda region: -areas[id(region)])
        name = str(PurePosixPath(file.replace("\\", "/")).with_suffix(""))
        images.append(Annotated(name, f"{path}, {file}", size, tuple(regions)))
    strays = [one for one in of_image if one not in seen]
    if strays:
        raise UserError(f"{path}: annotations name the images {listed(strays)}, which are not in its list")
    return images, list(names.values()), left_out


def _categories(path: Path, categories: Sequence[Any]) -> dict[Any, str]:
    found: dict[Any, str] = {}
    for place, category in enumerate(categories, 1):
        where = f"{path}, category {place}"
        one, name = _value(category, "id", (int, str), where), _value(category, "name", (str,), where)
        if one in found or name in found.values():
            raise UserError(f"{where}: its id {one!r} or name {name!r} occurs twice; give each its own")
        found[one] = name
    return dict(sorted(found.items(), key=lambda item: (str(type(item[0])), item[0])))


def _value(content: Any, key: str, kinds: tuple[type, ...], where: str) -> Any:
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, kinds) or isinstance(value, bool) or value == "":
        wanted = " or ".join("a number" if kind is int else "text" for kind in kinds)
        raise UserError(f"{where}: {key} is {shortened(value)}; it should be {wanted}")
    return value


def _region(label: str, segmentation: Any, size: tuple[int, int], where: str) -> Region | None:
    """None for an annotation with a box alone."""
    if isinstance(segmentation, dict):
        return Region(label, rle=_run_lengths(segmentation, size, where))
    if segmentation is not None and not isinstance(segmentation, list):
        raise UserError(
            f"{where}: segmentation is {shortened(segmentation)}; polygons or run lengths are read"
        )
    polygons = (corners(one, size, f"{where} ({label})") for one in segmentation or ())
    with_area = tuple(one for one in polygons if one)
    return Region(label, with_area) if with_area else None


def _run_lengths(code: Mapping[str, Any], size: tuple[int, int], where: str) -> dict[str, Any]:
    from pycocotools import mask as coco_mask

    counts, told = code.get("counts"), code.get("size")
    if told != list(size):
        raise UserError(f"{where}: run lengths for {shortened(told)}, but its image has {list(size)}")
    if not isinstance(counts, list) and not (isinstance(counts, str) and _CODE.fullmatch(counts)):
        raise UserError(f"{where}: counts is {shortened(counts)}; it should be a list or COCO's text")
    # Checked here, because the decoder takes runs that end early.
    runs = _runs(counts) if isinstance(counts, str) else [number(one, where) for one in counts]
    if min(runs, default=-1) < 0 or sum(runs) != size[0] * size[1]:
        raise UserError(f"{where}: run lengths that do not add up to the pixels of its image")
    if isinstance(counts, str):
        return dict(size=list(size), counts=counts.encode())
    return coco_mask.frPyObjects(dict(code), *size)


def _runs(text: str) -> list[int]:
    """The lengths in COCO's text, 5 bits a character, the lowest first.

    From the fourth on, it holds their differences to the lengths two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16) << (shift - 4)  # the sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
