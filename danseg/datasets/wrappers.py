"""Find the data sets inside wrappers such as ConcatDataset and RepeatDataset."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from danseg.errors import UserError


def inner_configs(config: dict) -> Iterator[dict]:
    """Yield the configs of the data sets inside ``config``, in order; ``config`` itself if it wraps none.

    They are parts of ``config``, not copies: a change to one of them changes ``config``.

    Raises:
        UserError: ``config`` is a list.
    """
    if isinstance(config, (list, tuple)):
        raise UserError(
            f"dataset=[...] lists {len(config)} data sets; write dict(type='ConcatDataset', datasets=[...])"
        )
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


def infos(dataset: Any) -> list[dict]:
    """What a data set without wrappers says about each of its images: ``img_path``, ``seg_map_path``, ..."""
    get = getattr(dataset, "get_data_info", None)  # a data set of another library may lack it
    return [get(index) for index in range(len(dataset))] if get else []


def named_sets(dataset: Any) -> dict[str, Any]:
    """The data sets inside ``dataset``, each with a name that tells it apart; empty if there is only one.

    The name is what differs between their folders of images, else between their lists of frames or folders of
    labels: ``a`` and ``b`` for ``data/a/images/val`` and ``data/b/images/val``. If all are equal, it is their
    number.
    """
    parts = list(inner_datasets(dataset))
    if len(parts) == 1:
        return {}
    for place in ("img_path", "ann_file", "seg_map_path"):
        places = [{"ann_file": getattr(one, "ann_file", ""), **_folders(one)}.get(place) for one in parts]
        paths = [Path(os.path.abspath(one or ".")).parts for one in places]
        if len(set(paths)) == len(paths):
            return dict(zip(_differences(paths), parts, strict=True))
    return {str(number): part for number, part in enumerate(parts, 1)}


def _folders(dataset: Any) -> dict[str, str]:
    return getattr(dataset, "data_prefix", None) or {}


def _differences(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Different paths without the folders that all of them begin and end with."""
    for end in (0, -1):
        while min(map(len, paths)) > 1 and len({path[end] for path in paths}) == 1:
            paths = [path[1:] if end == 0 else path[:-1] for path in paths]
    return ["/".join(path) for path in paths]
