"""What lies inside the wrappers of data sets, such as ConcatDataset and RepeatDataset."""

from collections.abc import Iterator
from typing import Any


def inner_configs(config: dict) -> Iterator[dict]:
    """The configs of the data sets themselves inside a config of a data set, in their order.

    They are the parts of ``config``, not copies: a change to one changes what is built.
    """
    if "datasets" in config:
        for part in config["datasets"]:
            yield from inner_configs(part)
    elif "dataset" in config:
        yield from inner_configs(config["dataset"])
    else:
        yield config


def inner_datasets(dataset: Any) -> Iterator[Any]:
    """The data sets themselves inside one that was built, in their order."""
    if hasattr(dataset, "datasets"):
        for part in dataset.datasets:
            yield from inner_datasets(part)
    elif hasattr(dataset, "dataset"):
        yield from inner_datasets(dataset.dataset)
    else:
        yield dataset
