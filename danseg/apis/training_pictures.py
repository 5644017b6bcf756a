"""Pictures of a config's training set as a trained network gets them in use: resized, but never augmented."""

from collections.abc import Iterator

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from danseg.apis.model import tested_dataset
from danseg.datasets.check_files import build_dataset, list_pairs, require_folders
from danseg.datasets.loading import load_picture, loading_step, shown
from danseg.datasets.wrappers import inner_configs
from danseg.engine.config.options import without_labels
from danseg.engine.data import loader_of
from danseg.errors import UserError


def training_pictures(config: Config, count: int) -> Iterator[np.ndarray]:
    """Load some pictures of the training set by the test pipeline, for a quantiser to see numbers of real pictures.

    They are spread evenly over the set, in its order, and always the same ones. Labels are not read.

    Args:
        config: the whole config, as it was read.
        count: how many; all, if there are no more.

    Yields:
        (H, W, 3) uint8, RGB, without the config's normalisation.

    Raises:
        UserError: the config has no training set, its files are missing or damaged, or are no colours of 8 bits.
    """
    init_default_scope(config.get("default_scope") or "mmseg")
    pipeline = without_labels(tested_dataset(config)["pipeline"])
    loader = loading_step(pipeline)
    steps = Compose([step for step in pipeline[1:] if step["type"] not in _AFTER_THE_PICTURE])
    paths: list[str] = []
    for part in inner_configs(loader_of(config, "train")["dataset"]):
        dataset = build_dataset(part, "train")
        require_folders(dataset, "the train split", config.get("prepare_command"), with_labels=False)
        pairs = list_pairs(dataset, "the train split", config.get("prepare_command"), with_labels=False)
        paths += [path for path, _ in pairs]
    for place in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int):
        path = paths[place]
        pixels = steps(load_picture(loader, path))["img"]
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise UserError(
                f"image {path} is {pixels.dtype} of shape {pixels.shape} for the network, and a quantised network "
                "takes colours of 8 bits alone"
            )
        yield shown(loader, pixels)


# What makes an array of a picture that is none any more.
_AFTER_THE_PICTURE = ("Normalize", "PackSegInputs")
