"""Errors that name the files of a sample which fails during a run."""

import functools
from collections.abc import Callable
from typing import Any

from torch.utils.data import Dataset

from danseg.datasets.wrappers import inner_datasets
from danseg.errors import UserError


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
        return prepare(index)
    except MemoryError:
        raise
    except Exception as error:
        info = dataset.get_data_info(index)
        label = f" with label {info['seg_map_path']}" if info.get("seg_map_path") else ""
        reason = str(error).strip().splitlines()
        raise UnusableSample(
            f"image {info.get('img_path')}{label} cannot be used: {type(error).__name__}"
            f"{': ' + reason[0] if reason else ''}"
        ) from error
