"""Prepare Cityscapes: write missing trainIds labels from the labelIds or from the polygons."""

import importlib.util
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from danseg.datasets.after_preparing import Reports, finished
from danseg.errors import UserError
from danseg.io.parallel import available_cpus, parallel_map
from danseg.io.words import ranges
from danseg.known_datasets import known_dataset
from danseg.label_maps.cityscapes_labels import TRAIN_IDS
from danseg.label_maps.label_png import read_label_map, write_label_map

_CITYSCAPES = known_dataset("cityscapes")
# A further process imports everything when it starts. With fewer polygon files per process than this, that
# takes longer than it saves.
_POLYGONS_PER_PROCESS = 64


def cityscapes(
    root: str | os.PathLike = _CITYSCAPES.root, *, cache: bool = False, progress: bool = True
) -> Reports:
    """Write the missing ``*_labelTrainIds.png`` files of a Cityscapes tree, then check the tree.

    They are made from the ``*_labelIds.png``. Where those are missing too, the official cityscapesscripts
    draw them from the ``*_polygons.json``. Existing labels are not changed.

    Args:
        root: Folder that holds ``leftImg8bit`` and ``gtFine``.
        cache: Whether to unpack the training frames as well (:mod:`danseg.datasets.frame_cache`).
        progress: Whether to draw progress bars on stderr.

    Returns:
        One report for each of train and val that exists, and one for the cache if it was written.

    Raises:
        UserError: The tree or cityscapesscripts is missing, or a file is damaged; the message names it.
    """
    root = Path(root)
    splits = [
        split
        for split, folders in _CITYSCAPES.folders.items()
        if any((root / folder).is_dir() for folder in folders)
    ]
    if not splits:
        raise UserError(
            f"there is no Cityscapes in {root.absolute()}: looked there for gtFine/train, gtFine/val, "
            "leftImg8bit/train and leftImg8bit/val. Download gtFine_trainvaltest.zip and "
            "leftImg8bit_trainvaltest.zip from www.cityscapes-dataset.com (free registration) and unpack "
            "both there"
        )
    from_ids, from_polygons = [], []
    for polygons_or_ids in sorted((root / "gtFine").glob("*/*/*_gtFine_*")):
        stem, _, kind = str(polygons_or_ids).rpartition("_gtFine_")
        stem += "_gtFine_"
        if Path(stem + "labelTrainIds.png").exists():
            continue
        if kind == "labelIds.png":
            from_ids.append(stem)
        elif kind == "polygons.json" and not Path(stem + "labelIds.png").exists():
            from_polygons.append(stem)

    if from_polygons and importlib.util.find_spec("cityscapesscripts") is None:
        raise UserError(
            f"{len(from_polygons)} frames have polygons but no labelIds, the first is "
            f"{from_polygons[0]}polygons.json. Drawing them takes the official scripts: "
            "pip install 'danseg[cityscapes]'"
        )
    if from_ids:
        parallel_map(_convert_ids, from_ids, description="Converting labelIds to trainIds", progress=progress)
    if from_polygons:
        processes = min(available_cpus(), len(from_polygons) // _POLYGONS_PER_PROCESS)
        # Processes, because drawing holds the interpreter's lock and threads would not help. Spawned, because
        # forking a process that has threads can deadlock.
        pool = None
        if processes > 1:
            pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
        parallel_map(
            _draw_polygons,
            from_polygons,
            description="Drawing polygons as trainIds",
            progress=progress,
            pool=pool,
        )
    return finished(_CITYSCAPES, root, splits, cache, progress)


def _convert_ids(stem: str) -> None:
    source = stem + "labelIds.png"
    ids = read_label_map(source)
    wrong = np.unique(ids[ids >= len(TRAIN_IDS)])
    if wrong.size:
        raise UserError(
            f"{source} holds the ids {ranges(wrong.tolist())}; labelIds go from 0 to {len(TRAIN_IDS) - 1}"
        )
    write_label_map(stem + "labelTrainIds.png", TRAIN_IDS[ids])


def _draw_polygons(stem: str) -> None:
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.preparation.json2labelImg import createLabelImage

    source = stem + "polygons.json"
    try:
        annotation = Annotation()
        annotation.fromJsonFile(source)
        drawn = createLabelImage(annotation, "trainIds")
    except (Exception, SystemExit) as error:  # the scripts exit the program at an unknown label
        raise UserError(f"{source} cannot be drawn: {error!r}. Copy or download it again") from error
    write_label_map(stem + "labelTrainIds.png", np.asarray(drawn))
