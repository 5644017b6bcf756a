"""Ultralytics' YAML of a semantic set, whose masks are files beside the images.

Its keys, from its documentation of semantic data sets: ``path`` is the folder that the others are relative
to; ``train``, ``val``, ``test`` are folders of images, lists of images in a text file, or several of them; an
image's mask has the same path with ``images`` replaced by ``masks_dir``, and any suffix of an image;
``names`` are the classes; ``label_mapping`` gives ids in the masks another class, or ``ignore_label``. Id 255
is ignored, and ids without a mapping are the classes.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danseg.errors import UserError
from danseg.io.images import IMAGE_SUFFIXES
from danseg.io.source_files import files_below, read_lines
from danseg.io.words import did_you_mean, shortened
from danseg.label_maps.id_formats import VOID

_SPLITS = ("train", "val", "test")
# `download` is code, which is never run; `nc` and `channels` have to agree with the rest.
_KEYS = ("path", *_SPLITS, "masks_dir", "names", "nc", "channels", "label_mapping", "download")
_IGNORED = ("ignore_label", None)
_MASK_SUFFIXES = (".png", ".PNG", ".bmp", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class UltralyticsFile:
    """What the YAML says; ``names`` are as they stand there."""

    names: Any
    masks_dir: str
    label_mapping: dict[Any, Any]  # 255 for ids that are ignored
    splits: dict[str, tuple[Path, ...]]


def is_ultralytics(content: Mapping[Any, Any]) -> bool:
    """Whether a mapping is meant as Ultralytics' form, and not as danseg's."""
    return "danseg" not in content and "names" in content and ("path" in content or "train" in content)


def read_ultralytics(path: Path, content: Mapping[Any, Any]) -> UltralyticsFile:
    """What a YAML in Ultralytics' form says.

    Raises:
        UserError: a key is unknown or not right.
    """
    for key in content:
        if key not in _KEYS:
            raise UserError(
                f"{path}: unknown key {key!r} for Ultralytics' form of a semantic set"
                f"{did_you_mean(str(key), _KEYS)}; known are {', '.join(_KEYS)}"
            )
    masks_dir = content.get("masks_dir")
    if masks_dir is None:
        raise UserError(
            f"{path} has no masks_dir, which in Ultralytics' form means that the labels are polygons in .txt "
            "files; danseg reads masks: add masks_dir: masks if they lie in a folder masks beside images"
        )
    if not isinstance(masks_dir, str) or not masks_dir.strip("/"):
        raise UserError(f"{path}: masks_dir is {shortened(masks_dir)}; give the name of the masks' folder")
    names = content["names"]
    count = content.get("nc")
    if count is not None and (type(count) is not int or not hasattr(names, "__len__") or len(names) != count):
        raise UserError(f"{path}: nc is {shortened(count)}, but names is {shortened(names)}; let them agree")
    if content.get("channels", 3) != 3:
        raise UserError(f"{path}: channels is {shortened(content['channels'])}; danseg reads colours, 3")
    root = _root(path, content.get("path"))
    splits = {
        key: tuple(_places(path, key, content[key], root)) for key in _SPLITS if content.get(key) is not None
    }
    if not splits:
        raise UserError(f"{path} names no split; give train and val, each a folder of images")
    return UltralyticsFile(names, masks_dir.strip("/"), _mapping(path, content.get("label_mapping")), splits)


def ultralytics_pairs(
    path: Path, split: str, places: Sequence[Path], masks_dir: str
) -> list[tuple[str, str]]:
    """Each image in folders and lists, and its mask; where there is no mask, the path that a PNG would have.

    Raises:
        UserError: a place is missing or holds no image, or an image lies in no folder called ``images``.
    """
    pairs = []
    for place in places:
        images = files_below(place) if place.is_dir() else _listed_images(path, split, place)
        images = [image for image in images if image.suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            raise UserError(f"{path}: {split} names {place}, which holds no image")
        pairs += [(str(image), _mask_of(image, masks_dir)) for image in images]
    return pairs


def _root(path: Path, value: Any) -> Path:
    if value is None:
        return path.parent
    if not isinstance(value, str) or "\0" in value:
        raise UserError(f"{path}: path is {shortened(value)}; give a folder in quotes")
    places = [path.parent / value, Path(value)]
    for place in places:
        if place.is_dir():
            return place
    looked = " and ".join(dict.fromkeys(str(place.absolute()) for place in places))
    raise UserError(f"{path}: path is {value!r}, but there is no folder {looked}; name the set's folder")


def _places(path: Path, key: str, value: Any, root: Path) -> list[Path]:
    values = value if isinstance(value, list) else [value]
    wrong = [one for one in values if not isinstance(one, str) or not one or "\0" in one]
    if wrong or not values:
        raise UserError(f"{path}: {key} is {shortened(value)}; give a folder of images, or a list of folders")
    return [root / one for one in values]


def _mapping(path: Path, mapping: Any) -> dict[Any, Any]:
    if mapping is None:
        return {}
    if not isinstance(mapping, dict):
        raise UserError(f"{path}: label_mapping is {shortened(mapping)}; give id: class, as in 7: 0")
    # A file of 8 bits holds no -1, under which Cityscapes lists its licence plates.
    return {
        one: VOID if number in _IGNORED else number
        for one, number in mapping.items()
        if not (one == -1 and number in _IGNORED)
    }


def _listed_images(path: Path, split: str, file: Path) -> list[Path]:
    lines = read_lines(file, f"{path}: {split} names {file}, which")
    return [file.parent / line.strip() for line in lines if line.strip()]


def _mask_of(image: Path, masks_dir: str) -> str:
    folders = list(image.parent.parts)
    if "images" not in folders:
        raise UserError(
            f"the image {image} lies in no folder called images, whose name {masks_dir} would replace in the "
            "path of its mask; arrange the files so, or use tools/prepare_dataset.py folder"
        )
    place = len(folders) - 1 - folders[::-1].index("images")
    stem = Path(*folders[:place], masks_dir, *folders[place + 1 :], image.stem)
    candidates = [f"{stem}{suffix}" for suffix in _MASK_SUFFIXES]
    return next((one for one in candidates if os.path.exists(one)), candidates[0])
