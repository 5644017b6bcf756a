"""What the outputs of a data set's images are called: predictions and pictures of a test."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from danseg.datasets.own_dataset import OwnDataset
from danseg.datasets.wrappers import infos, inner_datasets, named_sets
from danseg.errors import UserError


def output_names(dataset: Any) -> dict[str, str]:
    """The name of each image's outputs, without suffix, by the image's path.

    It is the image's own name. Where two images share that, it is for all the path below the data set's
    folder of images, as in ``tools/predict.py``, and of several data sets below the data set's name.

    Args:
        dataset: the data set, in any wrappers.

    Raises:
        UserError: two images still have the same name, as ``x.jpg`` and ``x.png`` in one folder have.
    """
    parts = named_sets(dataset) or {"": next(inner_datasets(dataset))}
    images = {name: [one["img_path"] for one in infos(part)] for name, part in parts.items()}
    names = {path: Path(path).stem for paths in images.values() for path in paths}
    if len(set(names.values())) < len(names):
        for name, paths in images.items():
            folder = Path(name, "_").parent  # none for ""
            names |= {path: (folder / below).as_posix() for path, below in _below(parts[name], paths).items()}
    taken: dict[str, str] = {}
    for path, name in names.items():
        if taken.setdefault(name, path) != path:
            raise UserError(
                f"{taken[name]} and {path} are both named {name}, so that their predictions would be one "
                "file; rename one of them"
            )
    return names


def _below(part: Any, paths: Sequence[str]) -> dict[str, str]:
    """The paths of images below their folder, without suffix."""
    if isinstance(part, OwnDataset):
        root = part.file.images_folder(part.split)
    else:
        root = (getattr(part, "data_prefix", None) or {}).get("img_path") or os.path.dirname(
            os.path.commonpath(paths)
        )
    root = os.path.abspath(root)
    return {path: os.path.splitext(os.path.relpath(os.path.abspath(path), root))[0] for path in paths}
