"""The last steps of preparing any data set: check it and, on request, write its frame cache."""

import os
from collections.abc import Iterable

from danseg.datasets.check import DatasetReport, check_dataset, labelled_files
from danseg.datasets.frame_cache import CacheReport, write_cache
from danseg.errors import UserError
from danseg.known_datasets import KnownDataset

Reports = list[DatasetReport | CacheReport]


def check_splits(
    dataset: KnownDataset, root: str | os.PathLike, splits: Iterable[str], progress: bool
) -> list[DatasetReport]:
    """Check splits of the data set in ``root``; returns one report per split."""
    return [
        check_dataset(
            dataset.config(root, split),
            len(dataset.classes),
            split_name=split,
            prepare_command=dataset.prepare_command(root),
            progress=progress,
        )
        for split in splits
    ]


def finished(
    dataset: KnownDataset, root: str | os.PathLike, splits: Iterable[str], cache: bool, progress: bool
) -> Reports:
    """Check splits and, if ``cache`` is set, unpack the training frames; returns one report per step."""
    reports: Reports = [*check_splits(dataset, root, splits, progress)]
    if cache:
        if not os.path.isdir(os.path.join(root, dataset.folders["train"][0])):
            raise UserError(f"there are no training frames to cache in {os.path.abspath(root)}")
        images, labels = zip(*labelled_files(dataset.config(root, "train"), "train"), strict=True)
        reports.append(write_cache(root, images, labels, progress=progress))
    return reports
