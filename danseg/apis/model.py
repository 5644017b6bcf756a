"""Build a config's model and load its weights, for inference."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.models import BaseSegmentor
from mmseg.registry import DATASETS, MODELS

from danseg.datasets.wrappers import inner_configs
from danseg.engine.building import naming_places
from danseg.engine.checkpoint import load_weights
from danseg.engine.config import load_config
from danseg.engine.options import drop_pretrained


def load_model(
    config: str | Path | Config, checkpoint: str | Path | None, device: str | torch.device | None = None
) -> BaseSegmentor:
    """Build a config's model for inference.

    Args:
        config: a config file, or a config that was already read; it is not changed.
        checkpoint: file of the weights; every parameter must fit. None keeps the random initial weights.
        device: where to put the model. Default: the GPU if there is one, else the CPU.

    Returns:
        The model in eval mode. ``model.cfg`` holds the config, ``model.dataset_meta`` the data set's
        ``classes`` and ``palette``.

    Raises:
        UserError: the config or the checkpoint cannot be read, or they do not fit each other.
    """
    config = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    init_default_scope(config.get("default_scope", "mmseg"))
    drop_pretrained(config.model)  # all weights come from the checkpoint
    with naming_places(config):
        model = MODELS.build(config.model)
    if checkpoint is not None:
        load_weights(model, checkpoint)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type != "cuda":
        model = revert_sync_batchnorm(model)
    model.cfg = config
    model.dataset_meta = dataset_meta(config)
    return model.to(device).eval()


def dataset_meta(config: Config) -> dict[str, Sequence]:
    """The ``classes`` and ``palette`` of the data set that a config tests on."""
    dataset = tested_dataset(config)
    meta = {**DATASETS.get(dataset["type"]).METAINFO, **(dataset.get("metainfo") or {})}
    return dict(classes=tuple(meta["classes"]), palette=[tuple(colour) for colour in meta["palette"]])


def tested_dataset(config: Config) -> dict:
    """The config of the data set that a config tests on; of several (ConcatDataset), the first one."""
    return next(inner_configs(config.test_dataloader.dataset))
