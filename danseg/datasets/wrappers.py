"""Find the data sets inside wrappers such as ConcatDataset and RepeatDataset."""

from collections.abc import Iterator
from typing import Any


def inner_configs(config: dict) -> Iterator[dict]:
    """Yield the configs of the data sets inside ``config``, in order; ``config`` itself if it wraps none.

    They are parts of ``config``, not copies: a change to one of them changes ``config``.
    """
    if "datasets" in config:
        for part in config["datasets"]:
            yield from inner_configs(part)
    elif "dataset" in config:
        yield from inner_configs(config["dataset"])
    else:
        yield config


def inner_datasets(dataset: Any) -> Iterator[Any]:
    """Yield the data sets inside ``dataset``, in order; ``dataset`` itself if it wraps none."""
    if hasattr(dataset, "datasets"):
        for part in dataset.datasets:
            yield from inner_datasets(part)
    elif hasattr(dataset, "dataset"):
        yield from inner_datasets(dataset.dataset)
    else:
        yield dataset
