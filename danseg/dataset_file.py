"""``dataset.yaml``: what a data set of one's own is. Data only; this module needs neither mmseg nor torch.

``tools/prepare_dataset.py folder`` writes the file, and everything else reads it here::

    danseg: 1                      # version of this form
    images: /data/pictures         # folder of the images; absolute, or relative to this file
    masks: masks                   # folder of the masks, likewise
    names: [road, tree]            # class 0, 1, ...
    colours: [[128, 64, 128], [107, 142, 35]]      # optional: red, green, blue, one a class
    mapping: {0: 0, 255: 1}        # optional: id in the mask files -> class; without it ids are the classes
    ignore: [254]                  # optional: ids in the mask files that are no class
    train: train.txt               # UTF-8, a pair a line: image TAB mask, relative to images and masks
    val: val.txt
    test: test.txt                 # optional

An id that is neither a class's nor ignored is an error in a mask. Ultralytics' YAML of a semantic set, with
masks in PNGs, is read as it is (:mod:`danseg.ultralytics_file`).
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from danseg.errors import UserError
from danseg.io.source_files import read_lines
from danseg.io.words import did_you_mean, listed, shortened
from danseg.io.yaml_file import read_yaml
from danseg.label_maps.class_colours import default_colours
from danseg.label_maps.id_formats import VOID
from danseg.ultralytics_file import is_ultralytics, read_ultralytics, ultralytics_pairs

FILE_NAME = "dataset.yaml"
SPLITS = ("train", "val", "test")
VERSION = 1
_REQUIRED = ("danseg", "images", "masks", "names")
_KEYS = (*_REQUIRED, "colours", "mapping", "ignore", *SPLITS)
_OTHER_NAMES = ("data.yaml",)  # of such files in a folder, beside dataset.yaml
_MOST_CLASSES = 255  # in masks of 8 bits, of which 255 stands for no class

Colour = tuple[int, int, int]
Pair = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class DatasetFile:
    """What a data set's file says.

    Attributes:
        path: the file.
        names: of the classes 0, 1, ...
        colours: red, green and blue of each class, 0 to 255.
        label_ids: each id that the mask files may hold, 0 to 255, with its class, or 255 if it is ignored.
        splits: what lists a split's images, by the split's name: one file of pairs, or Ultralytics' folders
            and lists of images.
        images: folder of the images; None in Ultralytics' form.
        masks: folder of the masks; in Ultralytics' form the name that takes the place of ``images`` in the
            path of an image.
    """

    path: Path
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    label_ids: dict[int, int]
    splits: dict[str, tuple[Path, ...]]
    images: Path | None
    masks: Path | str

    def pairs(self, split: str) -> list[Pair]:
        """Paths of each image and its mask of a split; the files need not exist.

        Raises:
            UserError: there is no such split, or its list is missing, damaged or empty.
        """
        if split not in self.splits:
            known = ", ".join(self.splits) or "none"
            raise UserError(f"{self.path} has no split {split!r}, only {known}{did_you_mean(split, SPLITS)}")
        if self.images is None:
            return ultralytics_pairs(self.path, split, self.splits[split], str(self.masks))
        (file,) = self.splits[split]
        return _listed_pairs(file, self.images, Path(self.masks))

    def images_folder(self, split: str) -> str:
        """The folder below which the images of a split have their names; absolute."""
        if self.images is not None:
            return os.path.abspath(self.images)
        return os.path.commonpath([os.path.dirname(os.path.abspath(image)) for image, _ in self.pairs(split)])


def read_dataset_file(file_or_folder: str | os.PathLike) -> DatasetFile:
    """Read ``dataset.yaml``, from its folder or by its own name; or Ultralytics' YAML of a semantic set.

    Raises:
        UserError: there is none, or what it says is not right; the message names the key and the fix.
    """
    path = _found(Path(file_or_folder))
    content = read_yaml(path)
    if is_ultralytics(content):
        read = read_ultralytics(path, content)
        names = class_names(path, read.names)
        label_ids = {**{number: number for number in range(len(names))}, VOID: VOID, **read.label_mapping}
        _check_label_ids(path, "label_mapping", label_ids, names)
        return DatasetFile(path, names, default_colours(names), label_ids, read.splits, None, read.masks_dir)
    return _read_own(path, content)


def has_dataset_file(place: str | os.PathLike) -> bool:
    """Whether :func:`read_dataset_file` has something to read, right or not."""
    place = Path(place)
    return place.is_file() or any(os.path.lexists(place / name) for name in (FILE_NAME, *_OTHER_NAMES))


def dataset_text(
    *,
    images: str,
    masks: str,
    names: Sequence[str],
    colours: Sequence[Sequence[int]],
    mapping: Mapping[int, int] | None,
    ignore: Sequence[int],
    splits: Mapping[str, str],
) -> str:
    """The content of ``dataset.yaml``; the arguments are its keys, :mod:`danseg.dataset_file`.

    Raises:
        UserError: a path is no UTF-8.
    """
    content: dict[str, Any] = dict(
        danseg=VERSION, images=images, masks=masks, names=list(names), colours=[list(one) for one in colours]
    )
    content |= {} if mapping is None else {"mapping": dict(mapping)}
    content |= {"ignore": list(ignore), **splits}
    for path in (images, masks, *splits.values()):
        try:
            path.encode()  # YAML would write what it cannot read
        except UnicodeEncodeError as error:
            raise UserError(f"{FILE_NAME} cannot name {path!r}, which is not UTF-8; rename it") from error
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=100, default_flow_style=None)


def class_names(path: str | os.PathLike, names: Any) -> tuple[str, ...]:
    """The names of the classes, which are a list, or a mapping from 0, 1, ... to names.

    Raises:
        UserError: they are something else, one is no text or occurs twice, or there are too many.
    """
    if isinstance(names, dict):
        wrong = [key for key in names if type(key) is not int]
        missing = sorted(set(range(len(names))) - set(names))
        if wrong or missing:
            found = f"has the key {wrong[0]!r}" if wrong else f"lacks class {listed(missing)}"
            raise UserError(f"{path}: names {found}; number the classes from 0 without a gap")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path}: names is {shortened(names)}; give a list of the classes' names")
    for number, name in enumerate(names):
        if not isinstance(name, str):
            raise UserError(
                f"{path}: the name of class {number} is {shortened(name)}, as YAML reads it; put it into "
                "quotes, as in 'no'"
            )
        if not name.strip() or not name.isprintable():
            raise UserError(f"{path}: the name of class {number} is {shortened(name)}; give one in one line")
    stripped = [name.strip() for name in names]
    twice = sorted({name for name in stripped if stripped.count(name) > 1})
    if twice:
        raise UserError(f"{path}: names holds {listed(map(repr, twice))} twice; give each class its own name")
    if len(names) > _MOST_CLASSES:
        raise UserError(f"{path}: names holds {len(names)} classes; masks of 8 bits hold {_MOST_CLASSES}")
    return tuple(stripped)


def _found(place: Path) -> Path:
    is_named = place.suffix.lower() in (".yaml", ".yml") or os.path.lexists(place)
    if is_named and not place.is_dir():
        return place
    candidates = [name for name in (FILE_NAME, *_OTHER_NAMES) if os.path.lexists(place / name)]
    if not candidates:
        raise UserError(
            f"there is no {FILE_NAME} in {place.absolute()}: write it with python tools/prepare_dataset.py "
            f"folder IMAGES MASKS --out {place}; or name another folder, or the YAML file itself (--data)"
        )
    return place / candidates[0]


def _read_own(path: Path, content: dict[Any, Any]) -> DatasetFile:
    for key in content:
        if key not in _KEYS:
            raise UserError(
                f"{path}: unknown key {key!r}{did_you_mean(str(key), _KEYS)}; known are {', '.join(_KEYS)}"
            )
    missing = [key for key in _REQUIRED if key not in content]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}, so it is no {FILE_NAME}; write one with python "
            "tools/prepare_dataset.py folder IMAGES MASKS --out FOLDER"
        )
    if type(content["danseg"]) is not int or content["danseg"] != VERSION:
        raise UserError(
            f"{path}: danseg is {shortened(content['danseg'])}; this version of danseg reads form {VERSION}"
        )
    names = class_names(path, content["names"])
    folders = {key: path.parent / _text(path, key, content[key]) for key in ("images", "masks")}
    splits: dict[str, tuple[Path, ...]] = {
        key: (path.parent / _text(path, key, content[key]),) for key in SPLITS if key in content
    }
    if not splits:
        raise UserError(f"{path} names no split; give train and val, each a file with a pair a line")
    return DatasetFile(
        path, names, _colours(path, content, names), _label_ids(path, content, names), splits, **folders
    )


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise UserError(f"{path}: {key} is {shortened(value)}; give a path in quotes")
    return value


def _colours(path: Path, content: dict[Any, Any], names: Sequence[str]) -> tuple[Colour, ...]:
    if "colours" not in content:
        return default_colours(names)
    colours = content["colours"]
    if not isinstance(colours, list) or len(colours) != len(names):
        count = f"{len(colours)} of them" if isinstance(colours, list) else shortened(colours)
        raise UserError(f"{path}: colours is {count} for {len(names)} classes; give one a class")
    for name, colour in zip(names, colours, strict=True):
        if not isinstance(colour, list) or len(colour) != 3 or not all(map(_is_id, colour)):
            raise UserError(
                f"{path}: the colour of {name!r} is {shortened(colour)}; give red, green and blue, 0 to 255"
            )
    return tuple((red, green, blue) for red, green, blue in colours)


def _label_ids(path: Path, content: dict[Any, Any], names: Sequence[str]) -> dict[int, int]:
    """The class of each id, 255 for those that are ignored."""
    ignored, mapping = content.get("ignore", []), content.get("mapping")
    if not isinstance(ignored, list) or not all(map(_is_id, ignored)):
        raise UserError(f"{path}: ignore is {shortened(ignored)}; give a list of ids, 0 to 255")
    if mapping is None and "mapping" not in content:
        mapping = {number: number for number in range(len(names))}
        both, said = sorted(set(mapping) & set(ignored)), "are classes: give the classes' ids in mapping"
    elif not isinstance(mapping, dict):
        raise UserError(f"{path}: mapping is {shortened(mapping)}; give id: class, as in {{0: 0, 255: 1}}")
    else:
        both, said = sorted(set(mapping) & set(ignored)), "have a class in mapping: leave out one of the two"
        voids = [one for one, number in mapping.items() if number == VOID]
        if voids:
            raise UserError(f"{path}: mapping gives {listed(voids)} class {VOID}; list such ids in ignore")
    if both:
        raise UserError(f"{path}: the ids {listed(both)} in ignore {said}")
    _check_label_ids(path, "mapping", mapping, names)
    return {**mapping, **{one: VOID for one in ignored}}


def _check_label_ids(path: Path, key: str, mapping: Mapping[Any, Any], names: Sequence[str]) -> None:
    last = len(names) - 1
    for one, number in mapping.items():
        if not _is_id(one):
            raise UserError(f"{path}: {key} has the id {shortened(one)}; ids are numbers from 0 to 255")
        if type(number) is not int or not (0 <= number <= last or number == VOID):
            raise UserError(
                f"{path}: {key} gives id {one} the class {shortened(number)}; classes are 0 to {last}"
            )
    without = [name for number, name in enumerate(names) if number not in mapping.values()]
    if without:
        raise UserError(f"{path}: {key} gives no id to {listed(map(repr, without))}; each class needs one")


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255


def _listed_pairs(file: Path, images: Path, masks: Path) -> list[Pair]:
    pairs = []
    for number, line in enumerate(read_lines(file, f"the list {file}"), 1):
        parts = line.split("\t")
        if parts == [""]:
            continue
        if len(parts) != 2 or not all(parts) or "\0" in line:
            raise UserError(
                f"{file}, line {number}: {shortened(line)} is no pair; write the image, a tab and its mask"
            )
        pairs.append((str(images / parts[0]), str(masks / parts[1])))
    if not pairs:
        raise UserError(f"{file} lists no pair; write an image, a tab and its mask in each line")
    return pairs
