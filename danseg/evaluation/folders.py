"""Compute mIoU from two folders of PNG files, without a model: predictions and the label maps of a data set.

The scores equal those of each data set's own evaluator: for Cityscapes the per-class IoU of
evalPixelLevelSemanticLabeling.py of cityscapesscripts, for ADE20K the pixel accuracy and the IoU of the
scene-parsing benchmark. A prediction that names no class ('unlabeled', 'other') counts as an error for the
labelled class and for no other class.
"""

import dataclasses
import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from danseg.datasets.metainfo import class_names
from danseg.errors import UserError
from danseg.evaluation.confusion import Scores, add_sparse, count_pairs, sparse
from danseg.evaluation.truth import Truth, by_key, truth_of
from danseg.io.parallel import available_cpus, parallel_map
from danseg.io.source_files import fault, files_below
from danseg.io.words import listed, ranges
from danseg.label_maps.id_formats import PREDICTION_IDS, IdFormat, id_format
from danseg.label_maps.label_png import read_label_map

_IDS = 256  # number of ids in an 8-bit label map


@dataclasses.dataclass(frozen=True)
class Pair:
    """A label map and the prediction that belongs to it."""

    label: Path
    prediction: Path


@dataclasses.dataclass(frozen=True)
class FolderEvaluation:
    """The result of :func:`evaluate_folders`.

    Attributes:
        scores: exact scores over all pairs.
        pairs: the files that were compared, in order.
        unused: PNG files in the folder of predictions that belong to no label map.
    """

    scores: Scores
    pairs: tuple[Pair, ...]
    unused: tuple[Path, ...]


def evaluate_folders(
    prediction_dir: str | os.PathLike,
    label_dir: str | os.PathLike,
    dataset: str,
    *,
    prediction_ids: str | None = None,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> FolderEvaluation:
    """Score a folder of predictions against a folder of label maps.

    Args:
        prediction_dir: folder of the predictions. It is searched recursively, linked folders included,
            except for hidden files. A Cityscapes prediction is named ``<city>_<sequence>_<frame>*.png``, one
            of a data set of one's own like its image, with or without ``_labels``, any other like its label.
        label_dir: ``gtFine/val`` of Cityscapes, ``annotations/validation`` of ADE20K or ``valannot`` of
            CamVid. In Cityscapes' folder it searches recursively for ``*_gtFine_labelIds.png`` or, if there
            are none, for ``*_gtFine_labelTrainIds.png``. Of a data set of one's own, a folder of its masks:
            those of ``split`` in it are scored.
        dataset: a name of :data:`danseg.known_datasets.KNOWN_DATASETS`, or the place of a ``dataset.yaml``.
        prediction_ids: which ids the predictions hold. 'labelIds' are those that the data set publishes and
            its server expects (ADE20K: 1..150, 0 = other). 'trainIds' are 0..C-1 (255 = no class). None means
            labelIds, but raises an error if the predictions look like trainIds; for a data set of one's own,
            whose labelIds are the ids in its masks, it means trainIds, which danseg's tools write.
        split: of a data set of one's own, "val" by default.
        classes: names of the classes to score, as in a config's ``metainfo``: labels of other classes are
            ignored, and trainIds count these. None means all.
        workers: number of processes; None means one per CPU core.
        progress: whether to show a progress bar on stderr, if that is a terminal.

    Raises:
        UserError: a folder or file is missing, cannot be read or is none, or a file is damaged, has the
            wrong size, or holds ids that its format does not allow.
    """
    prediction_dir, label_dir = Path(prediction_dir), Path(label_dir)
    if prediction_ids not in (None, *PREDICTION_IDS):
        allowed = ", ".join(PREDICTION_IDS)
        raise UserError(f"unknown prediction ids '{prediction_ids}'; choose one of {allowed}")
    if workers is not None and workers < 1:
        raise UserError(f"workers={workers}: at least 1 is needed")
    for what, folder in (("predictions", prediction_dir), ("label maps", label_dir)):
        if not folder.is_dir():
            raise UserError(f"the folder of {what}, {folder}, does not exist")

    truth = truth_of(dataset, label_dir, split)
    names = truth.classes if classes is None else class_names(truth.name, classes)
    unknown = [name for name in names if name not in truth.classes]
    if unknown:
        raise UserError(f"{truth.name} has no class {listed(unknown)}; it has {', '.join(truth.classes)}")
    places = [truth.classes.index(name) for name in names]
    label_format = truth.label_format.choose(places)
    pairs, unused = _find_pairs(prediction_dir, label_dir, truth)
    formats = {
        "labelIds": truth.published_format.choose(places),
        "trainIds": id_format("plain", len(names)),
    }
    prediction_format = formats[prediction_ids or truth.assumed]
    count_pair = functools.partial(
        _count_pair, label_format=label_format, prediction_format=prediction_format, formats=formats
    )

    table = np.zeros((_IDS, _IDS), dtype=np.int64)  # indexed by the ids stored in the files
    for positions, counts in _count_all(count_pair, pairs, workers, progress):
        add_sparse(table, positions, counts)

    if prediction_ids is None:
        _refuse_train_ids(table.sum(axis=0), prediction_dir, truth.telltale_ids, len(names) - 1)
    scores = Scores(names, _merge(table, label_format, prediction_format))
    return FolderEvaluation(scores, tuple(pairs), tuple(unused))


def _find_pairs(prediction_dir: Path, label_dir: Path, truth: Truth) -> tuple[list[Pair], list[Path]]:
    """Every label map with its prediction, and the PNG files that belong to no label map."""
    files = files_below(prediction_dir, ".png")
    if not files:
        files = [path for path in files_below(prediction_dir) if not fault(path)]
        others = sorted({path.suffix for path in files} - {""})
        raise UserError(
            f"no *.png in {prediction_dir} or below"
            + (f", only files with {', '.join(others)}" if others else "")
            + "; predictions are PNG files that hold class ids"
        )
    frames = {path: truth.frame_of(path.relative_to(prediction_dir)) for path in files}
    used = {path: frame for path, frame in frames.items() if frame is not None}
    predictions = by_key(prediction_dir, used)
    missing = [frame for frame in truth.labels if frame not in predictions]
    if missing:
        raise UserError(
            f"no prediction for {len(missing)} of the {len(truth.labels)} label maps in {label_dir}; the "
            f"first is {truth.labels[missing[0]]}, which needs {truth.name_for(missing[0])} in "
            f"{prediction_dir} or below"
        )
    pairs = [Pair(label, predictions[frame]) for frame, label in truth.labels.items()]
    return pairs, [path for path, frame in frames.items() if frame is None]


def _count_pair(
    pair: Pair, label_format: IdFormat, prediction_format: IdFormat, formats: dict[str, IdFormat]
) -> tuple[np.ndarray, np.ndarray]:
    """Read one pair of files and count its pairs of ids; runs in a worker process.

    ``formats`` holds all formats of predictions. If the ids do not fit ``prediction_format``, the error
    suggests one of these.
    """
    label, prediction = read_label_map(pair.label), read_label_map(pair.prediction)
    if label.shape != prediction.shape:
        raise UserError(
            f"{pair.prediction} is {prediction.shape[0]}x{prediction.shape[1]} (height x width), its label "
            f"map {pair.label} is {label.shape[0]}x{label.shape[1]}; write predictions in the labels' size"
        )
    table = count_pairs(label, prediction, _IDS)
    for path, pixels, id_format_ in (
        (pair.label, table.sum(axis=1), label_format),
        (pair.prediction, table.sum(axis=0), prediction_format),
    ):
        wrong = np.flatnonzero((pixels > 0) & (id_format_.index < 0))
        if wrong.size:
            hint = ""
            for name, other in formats.items():
                if path is pair.prediction and (other.index[pixels > 0] >= 0).all():
                    hint = f"; these may be {name}: then say so with --pred-ids {name}"
            raise UserError(
                f"{path}: ids {listed(wrong)} are not in the format '{id_format_.name}', which allows "
                f"{id_format_.allowed()}{hint}"
            )
    return sparse(table)


def _count_all(
    count_pair: Callable[[Pair], tuple[np.ndarray, np.ndarray]],
    pairs: list[Pair],
    workers: int | None,
    progress: bool,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Count all pairs in ``workers`` processes, or in this process if ``workers`` is 1."""
    workers = min(workers or available_cpus(), len(pairs))
    if workers == 1:
        pool: Executor = ThreadPoolExecutor(1)
    else:
        # Forked workers start at once; spawned ones would import torch and mmseg again. Forking is safe here:
        # the workers run only NumPy and PNG decoders, and they start before the progress bar's thread.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=_ignore_interrupt)
    try:
        return parallel_map(count_pair, pairs, description="comparing", progress=progress, pool=pool)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, probably for lack of memory; use fewer with --workers"
        ) from error


def _ignore_interrupt() -> None:
    """Ignore Ctrl-C in a worker; the parent process handles it and ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _refuse_train_ids(
    pixels: np.ndarray, prediction_dir: Path, telltale_ids: frozenset[int], last: int
) -> None:
    """Raise an error if predictions whose ids the user has not declared look like train ids.

    Args:
        pixels: (256,) number of predicted pixels of each id.
        telltale_ids: published ids that name no class.
        last: the last train id.
    """
    ids = set(np.flatnonzero(pixels).tolist())
    telltale = ids & telltale_ids
    if telltale and max(ids) <= last:
        raise UserError(
            f"the predictions in {prediction_dir} look like trainIds: no id is above {last}, and "
            f"{ranges(telltale)}, which they hold, would name no class among the published ids. Say which "
            "they are: --pred-ids trainIds or --pred-ids labelIds"
        )


def _merge(table: np.ndarray, label_format: IdFormat, prediction_format: IdFormat) -> np.ndarray:
    """Convert (256, 256) counts of ids to the (C, C + 1) confusion of classes, without ignored labels."""
    num_classes = len(label_format.class_ids)
    confusion = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    labels, predictions = np.nonzero(table)
    np.add.at(
        confusion,
        (label_format.index[labels], prediction_format.index[predictions]),
        table[labels, predictions],
    )
    return confusion[:num_classes]
