"""Pictures of a config's training set as a trained network gets them in use: resized, but never augmented."""

from collections.abc import Iterator

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from danseg.apis.model import tested_dataset
from danseg.apis.pictures import load
from danseg.apis.split_pictures import split_pictures
from danseg.datasets.loading import loading_step, shown
from danseg.engine.config.options import without_labels
from danseg.errors import UserError


def training_pictures(config: Config, count: int) -> Iterator[np.ndarray]:
    """Load some pictures of the training set by the test pipeline, for what has to see real pictures.

    They are spread evenly over the set, in its order, and always the same ones. Labels are not read.

    Args:
        config: the whole config, as it was read.
        count: how many; all, if there are no more.

    Yields:
        (H, W, 3) uint8, RGB, without the config's normalisation.

    Raises:
        UserError: the config has no training set, or its files are missing, damaged, or no colours of
            8 bits.
    """
    init_default_scope(config.get("default_scope") or "mmseg")
    pipeline = without_labels(tested_dataset(config)["pipeline"])
    loader = loading_step(pipeline)
    steps = Compose([step for step in pipeline[1:] if step["type"] not in _AFTER_THE_PICTURE])
    for path in split_pictures(config, "train", count):
        pixels = steps(load(loader, path))["img"]
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise UserError(
                f"image {path} is {pixels.dtype} of shape {pixels.shape} for the network; int8 "
                "needs pictures whose channels are colours of 8 bits"
            )
        yield shown(loader, pixels)


# What makes an array of a picture that is none any more.
_AFTER_THE_PICTURE = ("Normalize", "PackSegInputs")
