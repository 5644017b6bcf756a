"""Test-time augmentation for prediction: the config's ``tta_pipeline`` and ``tta_model`` around a network."""

import copy
from typing import Any

from mmengine.config import Config
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS

from danseg.datasets.wrappers import inner_configs
from danseg.engine.config.options import tta_wrapper, without_labels


def augmented_config(config: Config) -> Config:
    """The config with its ``tta_pipeline``, without labels, as the test pipeline.

    Raises:
        UserError: it has none, or no ``tta_model``.
    """
    tta_wrapper(config)
    config = copy.deepcopy(config)
    for dataset in inner_configs(config.test_dataloader.dataset):
        dataset["pipeline"] = without_labels(config.tta_pipeline)
    return config


def augmented_model(model: BaseSegmentor) -> Any:
    """The config's ``tta_model`` around a network that was loaded with :func:`augmented_config`."""
    return MODELS.build({**tta_wrapper(model.cfg), "module": model}).eval()
