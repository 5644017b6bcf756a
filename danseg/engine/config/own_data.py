"""``--data``: what a data set of one's own gives to a config that stands on a ``folder`` recipe.

The recipe's base ``configs/_base_/datasets/folder.py`` computes with names, such as ``crop_size`` and
``batch_size``. Here they get the values that follow from the set, by the rules of ``docs/own_data.md``. What
a config of one's own or ``--cfg-options`` sets wins over them.
"""

import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from danseg.dataset_file import DatasetFile, has_dataset_file, read_dataset_file
from danseg.errors import UserError
from danseg.io.image_headers import stored_size
from danseg.io.parallel import available_cpus, parallel_map
from danseg.io.words import listed

TYPE = "OwnDataset"
NOTE = "from_data"  # the name under which a config holds what followed from the set, and why

LARGEST_CROP = 512  # pixels of a side
SMALLEST_CROP = 32
_STEP = 8  # the networks' stride
_PIXELS = 2**20  # of all crops of a batch
_BATCHES = (2, 8)
_FEWEST_BATCHES = 4  # that make up the training images
_PASSES = 50
_ITERATIONS = (200, 20_000)
_MOST_WORKERS = 4
_LOOKED_AT = 1000  # images of a split


class Setting(NamedTuple):
    """A value that follows from a set, and the rule in words."""

    value: Any
    why: str


def settings_from(data: str | os.PathLike) -> dict[str, Setting]:
    """The names of the ``folder`` recipes with the values that follow from a set.

    Args:
        data: the folder of ``dataset.yaml``, or the file.

    Raises:
        UserError: there is no such file, it is not right, or a split is empty.
    """
    file = read_dataset_file(data)
    found = {
        "data_root": Setting(os.fspath(data), "--data, or the config's own place of the set"),
        "num_classes": Setting(len(file.names), f"names in {file.path.name}"),
    }
    trained, tested = (_sizes(file, *splits) for splits in (("train",), ("val", "test")))
    crop = (LARGEST_CROP, LARGEST_CROP)
    if trained:
        height, width = (statistics.median_low(sides) for sides in zip(*trained, strict=True))
        crop = _side(height), _side(width)
        shown = height * width // (crop[0] * crop[1])
        small = (
            f"; it shows a {shown}th of an image, unless image_scale makes them smaller" if shown > 8 else ""
        )
        found["crop_size"] = Setting(
            crop,
            f"height, width: the median of the training images, {height}x{width}, at most {LARGEST_CROP}, by "
            f"{_STEP}{small}",
        )
    if "train" in file.splits:
        images = len(file.pairs("train"))
        fitting = min(_PIXELS // (crop[0] * crop[1]), _BATCHES[1], images // _FEWEST_BATCHES)
        batch = max(fitting, _BATCHES[0])
        found["batch_size"] = Setting(
            batch,
            f"a million pixels in all crops, a {_FEWEST_BATCHES}th of the images at most, {_BATCHES[0]} to "
            f"{_BATCHES[1]}",
        )
        length = min(max(_PASSES * images // batch, _ITERATIONS[0]), _ITERATIONS[1])
        found["max_iters"] = Setting(
            -(-length // 100) * 100,
            f"{_PASSES} times through {images:,} images, {_ITERATIONS[0]:,} to {_ITERATIONS[1]:,}",
        )
    if tested:
        large = [size for size in tested if size[0] * size[1] > 4 * LARGEST_CROP**2]
        height, width = max(tested, key=lambda size: size[0] * size[1])
        found["test_mode"] = Setting(
            "slide" if large else "whole",
            f"the largest tested image is {height}x{width}; windows for more than four times "
            f"{LARGEST_CROP}x{LARGEST_CROP} pixels",
        )
    found["test_split"] = Setting("test" if "test" in file.splits else "val", "what the file has")
    workers = min(available_cpus(), _MOST_WORKERS)
    found["num_workers"] = Setting(workers, f"processors of this machine, at most {_MOST_WORKERS}")
    return found


def _side(side: int) -> int:
    return max(min(side, LARGEST_CROP) // _STEP * _STEP, SMALLEST_CROP)


def _sizes(file: DatasetFile, *splits: str) -> list[tuple[int, int]]:
    """Height and width of the images of some splits, of evenly chosen ones where there are many.

    Images that cannot be read are left out: the check of the data set names them.
    """
    images = [image for split in splits if split in file.splits for image, _ in file.pairs(split)]
    chosen = images[:: -(-len(images) // _LOOKED_AT)] if images else []
    found = parallel_map(stored_size, chosen, description="Looking at images")
    return [size for size in found if size is not None]


def given_names(settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The values by name, as a config's bases take them."""
    return {name: setting.value for name, setting in settings.items()}


def named_set(
    values: Mapping[str, Any], inherited: Mapping[str, Any], options: Mapping[str, Any]
) -> str | None:
    """The set that a config on a ``folder`` recipe names by its ``data_root``, if it is there.

    Args:
        values: what the config holds.
        inherited: what its bases hold.
        options: what is set on the command line.
    """
    root = options.get("data_root", values.get("data_root"))
    is_there = _on_recipe(values, inherited) and isinstance(root, str) and has_dataset_file(root)
    return root if is_there else None


def _on_recipe(values: Mapping[str, Any], inherited: Mapping[str, Any]) -> bool:
    return values.get("dataset_type") == TYPE == inherited.get("dataset_type")


def require_recipe(path: Path, values: Mapping[str, Any], inherited: Mapping[str, Any]) -> None:
    """Raise an error unless a config stands on a ``folder`` recipe, which alone takes ``--data``.

    Args:
        path: the config.
        values: what it holds.
        inherited: what its bases hold.
    """
    if _on_recipe(values, inherited):
        return
    if values.get("dataset_type") == TYPE:
        raise UserError(
            f"--data is for configs on a folder recipe; {path} has all values written out, as training does, "
            "and names its set: leave --data out, or name the config in configs"
        )
    network = path.stem.partition("_")[0]
    there = sorted(path.parent.glob("*_folder.py"))
    there = [one for one in there if one.stem.startswith(f"{network}_")] or there
    known = f", such as {listed(there)}" if there else ""
    raise UserError(
        f"--data is for configs on a folder recipe{known}; {path} is for {values.get('dataset_type')}. One "
        "of your own has one of these as its _base_"
    )


def note(settings: Mapping[str, Setting], values: Mapping[str, Any], data: str, path: Path) -> dict[str, Any]:
    """What a config holds under :data:`NOTE`: the value and the reason of each name.

    Raises:
        UserError: the config has a ``data_root`` of its own beside ``--data``.
    """
    if values["data_root"] != os.fspath(data):
        raise UserError(
            f"--data {data} and data_root={values['data_root']!r}, which {path} or --cfg-options sets, both "
            "name the data set: give one of them"
        )
    return {name: dict(value=setting.value, why=setting.why) for name, setting in settings.items()}


def about_data(config: Mapping[str, Any]) -> list[str]:
    """A line for each setting that followed from ``--data``: its value in the config, and why."""
    lines = []
    for name, setting in (config.get(NOTE) or {}).items():
        value = config.get(name)
        same = _plain(value) == _plain(setting["value"])
        why = setting["why"] if same else f"set; from the data {setting['value']}"
        lines.append(f"{name} = {value!r}".ljust(28) + f" {why}")
    return lines


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
