"""What every data set gets once its files lie in their place: a check, and a cache on request."""

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
    """Check splits of a data set in ``root``, one report each."""
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
    """Check splits, and unpack the frames of training where a cache is asked for: one report each."""
    reports: Reports = [*check_splits(dataset, root, splits, progress)]
    if cache:
        if not os.path.isdir(os.path.join(root, dataset.folders["train"][0])):
            raise UserError(f"there are no training frames to cache in {os.path.abspath(root)}")
        images, labels = zip(*labelled_files(dataset.config(root, "train"), "train"), strict=True)
        reports.append(write_cache(root, images, labels, progress=progress))
    return reports
