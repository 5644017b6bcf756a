"""Check that the folders, images and labels of a data set exist."""

import copy
import os
from collections.abc import Sequence
from typing import Any

from danseg.datasets.check_report import describe_problems
from danseg.datasets.metainfo import check_class_names
from danseg.datasets.wrappers import infos
from danseg.errors import UserError
from danseg.io.words import listed
from danseg.known_datasets import known_dataset

TRAIN_IDS_SUFFIX = "_labelTrainIds.png"


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
        return f"Prepare it with: {prepare_command}   (data/README.md shows the expected tree)"
    return "data/README.md shows the expected tree and the command that prepares it"


def list_pairs(
    dataset: Any, where: str, prepare_command: str | None, with_labels: bool
) -> list[tuple[str, str | None]]:
    """Paths of every image and its label, which must exist; the label is None in a split without labels."""
    try:
        dataset.full_init()
    except (FileNotFoundError, ValueError) as error:
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
        if not os.path.isfile(image):
            problems.setdefault("images that are listed but do not exist", []).append(image)
        if label is not None and not os.path.isfile(label):
            if _official_source(label):
                unconverted.append(label)
            else:
                problems.setdefault("images without a label", []).append(f"{image}: no file {label}")
    if unconverted:
        kind = "labels without trainIds, although the labelIds or polygons to make them from are there"
        problems[kind] = unconverted
        fix = f"write them with: {cityscapes_command(dataset)}"
        raise UserError(describe_problems(f"{where} is half prepared", problems, {kind: fix}))
    if problems:
        fixes = {"images without a label": "add the labels, or remove these images"}
        if len(problems.get("images without a label", ())) == len(pairs):
            seen = _example_file(dataset.data_prefix["seg_map_path"])
            fixes["images without a label"] = (
                f"the folder holds files such as {seen}: is the suffix {dataset.seg_map_suffix!r} right?"
                if seen
                else f"the folder of labels is empty. {_how_to_get(prepare_command)}"
            )
        raise UserError(describe_problems(f"{where} is incomplete", problems, fixes))
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
    for directory, subfolders, files in os.walk(folder):
        subfolders.sort()
        for name in sorted(files):
            if not name.startswith("."):
                return os.path.relpath(os.path.join(directory, name), folder)
    return None


def labels_without_image(dataset: Any, pairs: Sequence[tuple[str, str | None]]) -> list[str]:
    """A warning about labels without an image; an empty list if there are none."""
    if getattr(dataset, "ann_file", "") or getattr(dataset, "_indices", None) is not None:
        return []  # the user chose only some of the frames
    used = {os.path.normpath(label) for _, label in pairs if label is not None}
    spare = [
        path
        for directory, _, files in os.walk(dataset.data_prefix["seg_map_path"])
        for name in files
        if name.endswith(dataset.seg_map_suffix)
        and not name.startswith(".")
        and (path := os.path.normpath(os.path.join(directory, name))) not in used
    ]
    if not spare:
        return []
    have = "label has" if len(spare) == 1 else "labels have"
    return [f"{len(spare)} {have} no image and will not be used: {listed(sorted(spare))}"]
