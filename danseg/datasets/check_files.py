"""Check that the folders, images and labels of a data set exist."""

import copy
import os
from collections.abc import Iterator, Sequence
from typing import Any

from danseg.datasets.check_report import UnusableDataset
from danseg.datasets.metainfo import check_class_names
from danseg.datasets.wrappers import infos
from danseg.errors import UserError
from danseg.io.source_files import fault, files_below
from danseg.known_datasets import known_dataset
from danseg.shipped import as_started, in_clone

TRAIN_IDS_SUFFIX = "_labelTrainIds.png"

# Kinds of problem, as they are named in messages, and their fixes.
_NO_IMAGE = "images that do not exist or are no files to read"
_NO_LABEL = "labels that are no files to read"
_UNLABELLED = "images without a label"
_NO_PICTURE = "labels without an image"
_FIXES = {
    _NO_IMAGE: "put the images there, make them readable, or remove what has their names",
    _NO_LABEL: "put the labels there, make them readable, or remove what has their names and their images",
    _UNLABELLED: "add the labels, or remove these images",
    _NO_PICTURE: "add the images, remove these labels, or list the frames to use in a file and name it as "
    "ann_file of the data set",
}


def build_dataset(config: dict, split_name: str) -> Any:
    """Build the data set with its paths and label map, but without opening any file."""
    import mmseg.datasets  # noqa: F401  (registration)
    from mmseg.registry import DATASETS

    config = dict(copy.deepcopy(config), pipeline=[], lazy_init=True, serialize_data=False)
    check_class_names(config)
    try:
        return DATASETS.build(config)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the data set of the {split_name} split cannot be built from its config: {error}"
        ) from error


def require_folders(dataset: Any, where: str, prepare_command: str | None, with_labels: bool) -> None:
    """Raise an error that names every missing folder and a missing list of frames."""
    prefixes = dataset.data_prefix
    wanted = {"images": prefixes.get("img_path")}
    if with_labels:
        wanted["labels"] = prefixes.get("seg_map_path")
        if not wanted["labels"]:
            raise UserError(f"{where} names no folder of labels: set data_prefix=dict(seg_map_path=...)")
    missing = [
        f"  {what}: {os.path.abspath(folder)} is no folder"
        for what, folder in wanted.items()
        if folder and not os.path.isdir(folder)
    ]
    ann_file = getattr(dataset, "ann_file", "")
    if ann_file and not os.path.exists(ann_file):
        missing.append(f"  list of frames: {os.path.abspath(ann_file)} is no file")
    if missing:
        lines = [f"{where} is missing. Looked for", *missing, _how_to_get(prepare_command)]
        raise UserError("\n".join(lines))


def _how_to_get(prepare_command: str | None) -> str:
    if prepare_command:
        tree = "   (data/README.md shows the expected tree)" if in_clone() else ""
        return f"Prepare it with: {as_started(prepare_command)}{tree}"
    if in_clone():
        return "data/README.md shows the expected tree and the command that prepares it"
    return f"{as_started('python tools/prepare_dataset.py')} --help lists the commands that prepare one"


def list_pairs(
    dataset: Any, where: str, prepare_command: str | None, with_labels: bool
) -> list[tuple[str, str | None]]:
    """Paths of every image and its label; the label is None in a split without labels.

    Raises:
        UserError: an image or a label is missing or is no file, or, unless the config chooses some of the
            frames, a label lacks its image or something is named like an image without being a file, which
            data sets leave out without a word.
    """
    try:
        dataset.full_init()
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error
    image_dir = dataset.data_prefix.get("img_path")
    found = infos(dataset)
    if not found:
        seen = _example_file(image_dir)
        suffix = getattr(dataset, "img_suffix", None)
        holds = f"the folder holds other files, such as {seen}" if seen else "the folder is empty"
        raise UserError(
            f"{where} has no image: looked for *{suffix} in {os.path.abspath(image_dir)}, {holds}\n"
            + _how_to_get(prepare_command)
        )
    pairs = [(info["img_path"], info["seg_map_path"] if with_labels else None) for info in found]

    problems: dict[str, list[str]] = {}
    unconverted = []
    for image, label in pairs:
        why = fault(image)
        if why is not None:
            problems.setdefault(_NO_IMAGE, []).append(f"{image}: {why}")
        why = None if label is None else fault(label)
        if label is not None and why is not None:
            if _official_source(label):
                unconverted.append(label)
            elif os.path.lexists(label):
                problems.setdefault(_NO_LABEL, []).append(f"{label}: {why}")
            else:
                problems.setdefault(_UNLABELLED, []).append(f"{image}: no file {label}")
    if not _chosen(dataset):
        for path, why in _left_out(dataset, [image for image, _ in pairs], "img_path", "img_suffix"):
            if why is not None:
                problems.setdefault(_NO_IMAGE, []).append(f"{path}: {why}")
        labels = [label for _, label in pairs if label is not None]
        for path, why in _left_out(dataset, labels, "seg_map_path", "seg_map_suffix") if with_labels else ():
            kind = _NO_LABEL if why is not None else _NO_PICTURE
            problems.setdefault(kind, []).append(f"{path}: {why}" if why is not None else path)
    if unconverted:
        kind = "labels without trainIds, although the labelIds or polygons to make them from are there"
        problems[kind] = unconverted
        fix = f"write them with: {cityscapes_command(dataset)}"
        raise UnusableDataset(f"{where} is half prepared", problems, {kind: fix})
    if problems:
        fixes = dict(_FIXES)
        if len(problems.get(_UNLABELLED, ())) == len(pairs):
            seen = _example_file(dataset.data_prefix["seg_map_path"])
            fixes[_UNLABELLED] = (
                f"the folder holds files such as {seen}: is the suffix {dataset.seg_map_suffix!r} right?"
                if seen
                else f"the folder of labels is empty. {_how_to_get(prepare_command)}"
            )
        raise UnusableDataset(f"{where} is incomplete", problems, fixes)
    return pairs


def cityscapes_command(dataset: Any) -> str:
    """The command that writes the trainIds of a data set in Cityscapes' layout."""
    return known_dataset("cityscapes").prepare_command(dataset.data_root or None)


def _official_source(label: str) -> bool:
    """Whether this missing trainIds label can be made from Cityscapes' own files beside it."""
    if not label.endswith(TRAIN_IDS_SUFFIX):
        return False
    stem = label.removesuffix(TRAIN_IDS_SUFFIX)
    return any(os.path.isfile(stem + suffix) for suffix in ("_labelIds.png", "_polygons.json"))


def _example_file(folder: str) -> str | None:
    return next((os.path.relpath(path, folder) for path in files_below(folder) if not fault(path)), None)


def _chosen(dataset: Any) -> bool:
    """Whether the config chooses only some of the frames."""
    return bool(getattr(dataset, "ann_file", "")) or getattr(dataset, "_indices", None) is not None


def _left_out(
    dataset: Any, used: Sequence[str], folder: str, suffix: str
) -> Iterator[tuple[str, str | None]]:
    """What has the name of an image or a label and is not used, and why it is no file; None if it is one."""
    place, ending = dataset.data_prefix.get(folder), getattr(dataset, suffix, None)
    if place and ending:
        known = set(map(os.path.normpath, used))
        for path in map(os.path.normpath, files_below(place, ending)):
            if path not in known:
                yield path, fault(path)
