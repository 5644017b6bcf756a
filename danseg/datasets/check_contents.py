"""Check what the files of a data set contain: image sizes, label ids, and what is wrong with them."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from danseg.datasets.check_files import TRAIN_IDS_SUFFIX, cityscapes_command
from danseg.datasets.loading import is_known, load_picture, turned_by
from danseg.errors import UserError
from danseg.io.image_headers import FIXES, UnusableImage, mapped
from danseg.io.images import decode_whole
from danseg.io.jpeg import JPEG, is_doubtful
from danseg.io.parallel import parallel_map
from danseg.io.source_files import read_file
from danseg.io.words import counted, ranges
from danseg.known_datasets import known_dataset
from danseg.label_maps.cityscapes_labels import LABELS
from danseg.label_maps.label_png import FIX, UnusableLabelMap, read_label_map


@dataclasses.dataclass
class Contents:
    """What decoding the files has shown. Ids are those stored in the label files, not train ids.

    ``images_with`` alone counts by train id: of an image several of whose ids are one class, that is one.
    """

    sizes: Counter = dataclasses.field(default_factory=Counter)  # (height, width) -> images
    raw_pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    images_with: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    problems: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # kind -> offenders
    wrong_ids: set[int] = dataclasses.field(default_factory=set)
    doubtful: list[str] = dataclasses.field(default_factory=list)  # images of which a decoder warns


def decode_all(
    pairs: Sequence[tuple[str, str | None]],
    allowed: np.ndarray,
    table: np.ndarray,
    loader: Any,
    description: str,
    progress: bool,
    distorted: bool = False,
) -> Contents:
    """Decode every image and label.

    Args:
        pairs: paths of images and labels.
        allowed: (256,), True for each id that a label may hold.
        table: (256,), what loading turns each id into.
        loader: the step that loads images.
        description, progress: of the progress bar.
        distorted: whether PhotoMetricDistortion will change the images' colours.
    """
    contents = Contents()
    findings = parallel_map(
        lambda pair: _decode_pair(*pair, allowed, loader, distorted),
        pairs,
        description=description,
        progress=progress,
    )
    for finding, (image, _) in zip(findings, pairs, strict=True):
        contents.doubtful += [image] if finding.doubtful else []
        contents.sizes.update([finding.size] if finding.size else [])
        if finding.raw_pixels is not None:
            contents.raw_pixels += finding.raw_pixels
            contents.images_with[np.unique(table[finding.raw_pixels > 0])] += 1
        contents.wrong_ids.update(finding.wrong_ids)
        for kind, text in finding.problems:
            contents.problems.setdefault(kind, []).append(text)
    return contents


@dataclasses.dataclass
class _Finding:
    size: tuple[int, int] | None = None
    raw_pixels: np.ndarray | None = None
    wrong_ids: tuple[int, ...] = ()
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    doubtful: bool = False


# Kinds of problem, as they are named in messages.
_UNREADABLE = "files that cannot be decoded"
_REFUSED = {
    "damaged": _UNREADABLE,
    "foreign": "images of a kind that loading cannot decode",
    "deep": "images with more than 8 bits a channel, which loading would cut to 8",
    "bands": "images with several bands, of which loading would read some alone",
    "alpha": "images whose alpha loading would multiply their colours by",
}
_TURNED = "images with an EXIF orientation, by which loading turns them but not their labels"
_NO_COLOURS = "images that PhotoMetricDistortion cannot change or would cut to 0..255"
_NO_IDS = "labels that are no maps of class ids"
_SIZES = "labels that differ from their image in size"
_IDS = "labels with ids outside the classes"


def _decode_pair(
    image_path: str, label_path: str | None, allowed: np.ndarray, loader: Any, distorted: bool
) -> _Finding:
    finding = _Finding()
    _decode_image(image_path, loader, distorted, finding)
    if label_path is None:
        return finding
    try:
        ids = read_label_map(label_path)
    except UnusableLabelMap as error:
        finding.problems.append((_UNREADABLE if error.damaged else _NO_IDS, f"{label_path}: {error.reason}"))
        return finding
    if finding.size not in (None, ids.shape):
        sizes = "{}x{} instead of {}x{}".format(*ids.shape, *finding.size)
        finding.problems.append((_SIZES, f"{label_path}: {sizes} as {image_path}"))
    finding.raw_pixels = np.bincount(ids.ravel(), minlength=256)
    wrong = np.flatnonzero((finding.raw_pixels > 0) & ~allowed)
    if len(wrong):
        finding.wrong_ids = tuple(wrong.tolist())
        count = int(finding.raw_pixels[wrong].sum())
        finding.problems.append((_IDS, f"{label_path}: {ranges(wrong.tolist())} ({counted(count, 'pixel')})"))
    return finding


def _decode_image(path: str, loader: Any, distorted: bool, finding: _Finding) -> None:
    """Load an image as training does; add its size, and what is wrong with it."""
    try:
        if is_known(loader):
            results = load_picture(loader, path)
            finding.size = results["ori_shape"]
            if distorted and not _has_colours_of_8_bits(results["img"]):
                held = "x".join(map(str, results["img"].shape))
                finding.problems.append((_NO_COLOURS, f"{path}: {held} of {results['img'].dtype}"))
        else:  # it may need more than a path; at least the file has to be an image
            finding.size = decode_whole(read_file(path)).size[::-1]
        with mapped(path) as data:
            turned = turned_by(loader, data)
            finding.doubtful = is_doubtful(bytes(data)) if data[:2] == JPEG else False
    except (OSError, UserError, ValueError) as error:
        cause = error.__cause__
        kind, reason = (cause.kind, cause.reason) if isinstance(cause, UnusableImage) else ("damaged", error)
        finding.problems.append((_REFUSED[kind], f"{path}: {reason}"))
        return
    if turned != 1:
        finding.problems.append((_TURNED, f"{path}: orientation {turned}"))


def _has_colours_of_8_bits(image: np.ndarray) -> bool:
    if image.ndim != 3 or image.shape[2] != 3:
        return False
    return image.dtype == np.uint8 or (image.dtype == np.float32 and image.min() >= 0 and image.max() <= 255)


def fixes(dataset: Any, contents: Contents, allowed: np.ndarray, num_classes: int) -> dict[str, str]:
    """How to fix each kind of problem."""
    suffix = getattr(dataset, "seg_map_suffix", "")
    write_train_ids = cityscapes_command(dataset)
    if suffix.endswith("_labelIds.png"):
        ids = (
            f"seg_map_suffix={suffix!r} selects the labelIds of Cityscapes, the classes are its trainIds: "
            f"use {known_dataset('cityscapes').label_suffix!r}, written by {write_train_ids}"
        )
    elif suffix.endswith(TRAIN_IDS_SUFFIX) and max(contents.wrong_ids, default=0) < len(LABELS):
        ids = f"these look like labelIds under the name of trainIds: delete them and run {write_train_ids}"
    elif not dataset.reduce_zero_label and contents.wrong_ids == {num_classes}:
        ids = (
            f"ids up to {num_classes} suggest that the classes count from 1 and 0 means no class, as in "
            "ADE20K: set reduce_zero_label=True in the data set"
        )
    elif getattr(dataset, "file_ids", None) is not None:
        ids = dataset.how_to_allow()
    elif spaced := _spaced_ids(dataset, contents, num_classes):
        ids = f"if these are the ids of the classes, in their order, set {_with_label_ids(spaced)}"
    else:
        ids = f"allowed are {ranges(np.flatnonzero(allowed).tolist())}; give the pixels one of these ids"
        if allowed[dataset.ignore_index]:
            ids += f", {dataset.ignore_index} where they belong to no class"
    return {
        _UNREADABLE: "copy or download them again",
        **{title: FIXES[kind] for kind, title in _REFUSED.items() if kind != "damaged"},
        _TURNED: FIXES["turned"],
        _NO_COLOURS: "take it out of the pipeline: it is for 8-bit images of three channels",
        _NO_IDS: FIX,
        _SIZES: "put the right label beside each image",
        _IDS: ids,
    }


def allowed_ids(dataset: Any, table: np.ndarray, num_classes: int) -> np.ndarray:
    """Which ids the label files may hold, (256,) bool; ``table`` is what loading turns each id into."""
    file_ids = getattr(dataset, "file_ids", None)
    if file_ids is not None:
        return np.isin(np.arange(256), list(file_ids))
    return (table < num_classes) | (table == dataset.ignore_index)


def refuse_masks(dataset: Any, raw_pixels: np.ndarray, num_classes: int, where: str) -> None:
    """Raise an error for masks of 0 and 255 whose 255 would be ignored, unless the config lists the ids."""
    if getattr(dataset, "file_ids", None) is not None or num_classes != 2 or dataset.ignore_index != 255:
        return
    if np.flatnonzero(raw_pixels).tolist() == [0, 255]:
        raise UserError(
            f"the labels of {where} hold 0 and 255 alone, but 255 is ignored, so that one of the two classes "
            f"has no pixel. If 255 is a class, set {_with_label_ids((0, 255))}; if it means no class, set "
            f"{_with_label_ids((0, 1))}"
        )


def _with_label_ids(ids: tuple[int, ...]) -> str:
    return f'type="FolderDataset", label_ids={ids} in the data set\'s config'


def _spaced_ids(dataset: Any, contents: Contents, num_classes: int) -> tuple[int, ...] | None:
    """The ids in the files, if there is one for each class and the data set's class defines none itself."""
    if getattr(type(dataset), "METAINFO", {}).get("classes") or dataset.reduce_zero_label:
        return None
    ids = np.flatnonzero(contents.raw_pixels).tolist()
    for candidates in (ids, [one for one in ids if one != dataset.ignore_index]):
        if len(candidates) == num_classes:
            return tuple(candidates)
    return None
