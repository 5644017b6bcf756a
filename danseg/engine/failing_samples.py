"""Errors that name the files of a sample which fails during a run."""

import functools
import os
from collections.abc import Callable
from typing import Any

from torch.utils.data import Dataset

from danseg.datasets.wrappers import inner_datasets
from danseg.errors import UserError
from danseg.io.source_files import fault
from danseg.io.words import listed


class UnusableSample(UserError):
    """A sample that cannot be read or transformed; the message names its files."""

    def __init__(self, message: str) -> None:
        # PyTorch rebuilds an error from a worker process with the text of its whole traceback: keep the end.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


def name_failing_samples(dataset: Dataset) -> None:
    """Make every error that loading or a transform raises name the image and the label of the sample."""
    for part in inner_datasets(dataset):
        if hasattr(part, "prepare_data"):
            part.prepare_data = functools.partial(_prepare_named, part, part.prepare_data)


def _prepare_named(dataset: Any, prepare: Callable[[int], Any], index: int) -> Any:
    try:
        _require_files(dataset, index)
        sample = prepare(index)
        _require_known_ids(dataset, sample)
        return sample
    except (MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # the panic of a decoder written in Rust is no Exception
        reason = str(error).strip().splitlines()
        raise UnusableSample(
            f"{files_of(dataset, index)} cannot be used: {type(error).__name__}"
            f"{': ' + reason[0] if reason else ''}"
        ) from error


def files_of(dataset: Any, index: int) -> str:
    """Name the image and the label of a sample of a data set without wrappers."""
    info = dataset.get_data_info(index)
    label = f" with label {info['seg_map_path']}" if info.get("seg_map_path") else ""
    return f"image {info.get('img_path')}{label}"


def _require_files(dataset: Any, index: int) -> None:
    """Raise an error for what is no file, of which a loading step could wait for ever."""
    info = dataset.get_data_info(index) if hasattr(dataset, "get_data_info") else {}
    for path in (info.get("img_path"), info.get("seg_map_path")):
        if path and os.path.exists(path) and (why := fault(path)):
            raise OSError(f"{path}: {why}")


def _require_known_ids(dataset: Any, sample: Any) -> None:
    """Raise an error for a label with ids outside the classes, as of a file that changed since its check."""
    packed = sample.get("data_samples") if isinstance(sample, dict) else None
    classes = (getattr(dataset, "metainfo", None) or {}).get("classes")
    if packed is None or "gt_sem_seg" not in packed or not classes:
        return
    ids = packed.gt_sem_seg.data
    if ids.is_floating_point():
        return
    ignored = getattr(dataset, "ignore_index", 255)
    wrong = ids[((ids < 0) | (ids >= len(classes))) & (ids != ignored)]
    if len(wrong):
        raise ValueError(
            f"its label has the ids {listed(wrong.unique().tolist())}, as loading gives them, outside the "
            f"{len(classes)} classes (0 to {len(classes) - 1}; ignored: {ignored}). The file is not as "
            "it was when the data were checked, or a transform changes ids: start again, which checks it anew"
        )
