"""The files of some pictures of a split, spread evenly over it."""

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope

from danseg.datasets.check_files import build_dataset, list_pairs, require_folders
from danseg.datasets.wrappers import inner_configs
from danseg.engine.data import loader_of


def split_pictures(config: Config, split: str, count: int) -> list[str]:
    """Paths of pictures of a split, in its order, always the same ones. Labels are not looked for.

    Args:
        config: the whole config, as it was read.
        split: "train", "val" or "test".
        count: how many; all, if there are no more.

    Raises:
        UserError: the config has no such split, or its folders or files are missing.
    """
    init_default_scope(config.get("default_scope") or "mmseg")
    paths: list[str] = []
    for part in inner_configs(loader_of(config, split)["dataset"]):
        dataset, where = build_dataset(part, split), f"the {split} split"
        require_folders(dataset, where, config.get("prepare_command"), with_labels=False)
        paths += [path for path, _ in list_pairs(dataset, where, config.get("prepare_command"), False)]
    places = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [paths[place] for place in places]
