"""The label maps that a folder of predictions is compared with: of a known data set, or of one's own."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from danseg.dataset_file import DatasetFile, read_dataset_file
from danseg.errors import UserError, reason_of
from danseg.io.source_files import files_below, read_file
from danseg.io.words import did_you_mean
from danseg.known_datasets import KNOWN_DATASETS, KnownDataset
from danseg.label_maps.id_formats import VOID, IdFormat, id_format


@dataclasses.dataclass(frozen=True)
class Truth:
    """Label maps by frame, and what ids in them and in predictions stand for.

    Attributes:
        name: of the data set, for messages.
        classes: their names.
        labels: the label map of each frame, which is what a prediction is named after.
        label_format: of the ids in the label maps.
        published_format: of the ids in predictions, where they are those that the data set publishes.
        frame_of: the frame of a prediction, from its path in the folder of predictions; None if it has none.
        name_for: the name of a frame's prediction, for messages.
        assumed: which of :data:`danseg.label_maps.id_formats.PREDICTION_IDS` predictions hold, unless told.
        telltale_ids: as of :class:`danseg.known_datasets.KnownDataset`.
    """

    name: str
    classes: tuple[str, ...]
    labels: dict[str, Path]
    label_format: IdFormat
    published_format: IdFormat
    frame_of: Callable[[Path], str | None]
    name_for: Callable[[str], str]
    assumed: str
    telltale_ids: frozenset[int] = frozenset()


def truth_of(dataset: str, label_dir: Path, split: str | None) -> Truth:
    """The label maps of a data set that lie in a folder.

    Args:
        dataset: a name of :data:`danseg.known_datasets.KNOWN_DATASETS`, or the place of a ``dataset.yaml``.
        label_dir: the folder, which is searched recursively.
        split: of a data set of one's own, or one whose splits are lists of frames; by default "val".

    Raises:
        UserError: there is no such data set, the folder holds none of its label maps, or a split is named for
            a known data set, whose folder says it.
    """
    if dataset in KNOWN_DATASETS:
        known = KNOWN_DATASETS[dataset]
        if split is not None and not known.lists:
            raise UserError(
                f"--split is for a dataset.yaml and for lists of frames; {dataset} has a folder for each"
            )
        return _of_known(known, label_dir, split or "val")
    if not os.path.exists(dataset):
        raise UserError(
            f"unknown data set '{dataset}'{did_you_mean(dataset, KNOWN_DATASETS)}; choose one of "
            f"{', '.join(KNOWN_DATASETS)}, or name the folder of a dataset.yaml"
        )
    return _of_own(read_dataset_file(dataset), label_dir, split or "val")


def by_key(root: Path, keys: Mapping[Path, str]) -> dict[str, Path]:
    """Files by key; raises an error if two files have the same key."""
    found: dict[str, Path] = {}
    for path, key in keys.items():
        first = found.setdefault(key, path)
        if first is not path:
            raise UserError(
                f"two files for '{key}' in {root}: {first.relative_to(root)} and "
                f"{path.relative_to(root)}; leave one of them there"
            )
    return found


def _of_known(dataset: KnownDataset, label_dir: Path, split: str) -> Truth:
    found = ((files_below(label_dir, suffix), suffix, ids) for suffix, ids in dataset.label_files)
    files, suffix, ids = next((one for one in found if one[0]), ([], "", ""))
    if not files:
        wanted = " or ".join(f"*{suffix}" for suffix, _ in dataset.label_files)
        raise UserError(
            f"no {wanted} in {label_dir} or below; for {dataset.name} give the folder "
            f"{dataset.folders['val'][1]}"
        )
    keys = {path: path.name.removesuffix(suffix) for path in files}
    if dataset.lists:
        frames = _listed_frames(dataset, label_dir, split)
        keys = {path: key for path, key in keys.items() if key in frames}
    labels = by_key(label_dir, keys)
    return Truth(
        dataset.name,
        dataset.classes,
        labels,
        id_format(ids, len(dataset.classes)),
        dataset.published_format(),
        lambda path: dataset.frame_of(path.stem, labels),
        lambda frame: frame + ("*.png" if dataset.name_goes_on else ".png"),
        "labelIds",
        dataset.telltale_ids,
    )


def _listed_frames(dataset: KnownDataset, label_dir: Path, split: str) -> set[str]:
    """The frames of a split of a data set whose splits lie in the same folders."""
    if split not in dataset.lists:
        raise UserError(f"{dataset.name} has no split {split!r}, only {', '.join(dataset.lists)}")
    file = label_dir.absolute().parents[dataset.folders[split][1].count("/")] / dataset.lists[split]
    try:
        return set(read_file(file).decode("utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the frames of {split} are listed in {file}, which cannot be read: {reason_of(error)}; give the "
            f"folder {dataset.folders[split][1]} of {dataset.name} in its published layout"
        ) from error


def _of_own(file: DatasetFile, label_dir: Path, split: str) -> Truth:
    """Frames are the images' paths below their folder, without suffixes; danseg's tools predict classes."""
    pairs = file.pairs(split)
    images = file.images_folder(split)
    below = os.path.join(os.path.realpath(label_dir), "")
    keys = {
        Path(mask): os.path.splitext(os.path.relpath(os.path.abspath(image), images))[0].replace(os.sep, "/")
        for image, mask in pairs
        if os.path.realpath(mask).startswith(below)
    }
    if not keys:
        masks = os.path.commonpath([os.path.dirname(mask) for _, mask in pairs])
        raise UserError(f"no mask of {split} of {file.path} lies in {label_dir}; they lie in {masks}")
    labels: dict[str, Path] = {}
    for mask, frame in keys.items():
        if frame in labels:
            raise UserError(
                f"{file.path}: two images of {split} are named {frame}, so that their predictions cannot be "
                "told apart; rename one"
            )
        labels[frame] = mask
    names = [frame.rpartition("/")[2] for frame in labels]
    by_name = {name: frame for name, frame in zip(names, labels, strict=True) if names.count(name) == 1}

    def frame_of(path: Path) -> str | None:
        whole = path.with_suffix("").as_posix()
        for one in (whole, whole.removesuffix("_labels")):  # tools/test.py --out, tools/predict.py
            frame = one if one in labels else by_name.get(one.rpartition("/")[2])
            if frame is not None:
                return frame
        return None

    format_ = _format_of(file)
    return Truth(
        str(file.path),
        file.names,
        labels,
        format_,
        format_,
        frame_of,
        lambda frame: f"{frame}.png",
        "trainIds",
    )


def _format_of(file: DatasetFile) -> IdFormat:
    """The first id of each class leads; a set may have several."""
    ids: dict[int, int] = {}
    for one, number in file.label_ids.items():
        ids.setdefault(number, one)
    class_ids = tuple(ids[number] for number in range(len(file.names)))
    void = frozenset(one for one, number in file.label_ids.items() if number == VOID)
    more = {one: number for one, number in file.label_ids.items() if one not in void and one not in class_ids}
    return IdFormat(file.path.name, class_ids, void, more)
