"""The name of the file when a sample fails in the middle of a run."""

import functools
from collections.abc import Callable
from typing import Any

from torch.utils.data import Dataset

from danseg.datasets.wrappers import inner_datasets
from danseg.errors import UserError


class UnusableSample(UserError):
    """A sample that cannot be read or transformed; the message names its files."""

    def __init__(self, message: str) -> None:
        # From a worker process it comes back rebuilt from the whole traceback's text.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


def name_failing_samples(dataset: Dataset) -> None:
    """Make an error in a dataset's loading or transforms name the image and label it came from."""
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
