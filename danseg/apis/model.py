"""Build a config's model and load its weights, for inference."""

import copy
from collections.abc import Mapping
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS

from danseg.datasets.metainfo import built_metainfo, give_the_set
from danseg.datasets.wrappers import inner_configs
from danseg.engine.channels import check_normalisation
from danseg.engine.checkpoints.checkpoint import load_weights
from danseg.engine.checkpoints.safe_loading import reading_safely
from danseg.engine.config.building import naming_places
from danseg.engine.config.exported_model import runs_exported
from danseg.engine.config.options import drop_pretrained, require_model
from danseg.errors import UserError
from danseg.export.exported_config import trained_config
from danseg.mmseg_import import building_quietly
from danseg.model_files import CHECKPOINTS, is_model_file


def load_model(
    source: str | Path | Config,
    checkpoint: str | Path | EllipsisType | None = ...,
    device: str | torch.device | None = None,
) -> BaseSegmentor:
    """Build a network for inference, from a config and its checkpoint or from one file that carries both.

    Args:
        source: a config file, or a config that was already read, which is not changed. Alone: a file that
            carries its config (.pth, .safetensors), as ``tools/publish.py`` and training write it, or its
            address (https://...); or an exported network (.onnx, .xml, .pt2, .pt), as ``tools/export.py``
            writes it, which its runtime runs. A .pt2 and a .pt are programs: load those that you trust.
        checkpoint: with a config: file of the weights or its address; every parameter must fit. None keeps
            the random initial weights.
        device: where to put the model. Default: the GPU if there is one, else the CPU. For an exported
            network as for :func:`danseg.export.sessions.open_session`.

    Returns:
        The model in eval mode. ``model.cfg`` holds the config. ``model.dataset_meta`` holds ``classes``,
        ``palette`` and all else that :func:`danseg.datasets.metainfo.built_metainfo` says about the data set
        that the config tests on. Classes that the checkpoint was trained for come first: they are what the
        network predicts.

    Raises:
        UserError: the device is not there, the config or the checkpoint cannot be read, one is there without
            the other, they do not fit each other, neither names the model's classes, or the config's
            normalisation does not fit the channels of its network.
    """
    checkpoint = _weights_of(source, checkpoint)
    config = copy.deepcopy(source) if isinstance(source, Config) else trained_config(source)
    require_model(config)
    exported = runs_exported(config, checkpoint)
    if exported:  # its runtime knows its devices
        config.model.backbone.device = None if device is None else str(device)
    there = chosen_device(None if exported else device)
    init_default_scope(config.get("default_scope") or "mmseg")
    check_normalisation(config.model, f"config {config.filename or ''}".rstrip())
    drop_pretrained(config.model)  # all weights come from the checkpoint
    with naming_places(config), reading_safely():  # some networks read files when they are built
        model = built_model(config.model)
    if exported:
        content = dict(meta=dict(dataset_meta=model.backbone.dataset_meta))
        ran_on = model.backbone.session.device
        there = chosen_device(ran_on if ran_on.startswith("cuda") and torch.cuda.is_available() else "cpu")
    else:
        content = {} if checkpoint is None else load_weights(model, checkpoint)
    if there.type != "cuda":
        model = revert_sync_batchnorm(model)
    model.cfg = config
    model.dataset_meta = _predicted_meta(config, content, model.num_classes)
    return model.to(there).eval()


def _weights_of(
    source: str | Path | Config, checkpoint: str | Path | EllipsisType | None
) -> str | Path | None:
    """The file of the weights; None for random ones."""
    if not isinstance(source, Config) and is_model_file(source):
        if checkpoint is ...:
            return source
        raise UserError(
            f"{source} is a file of weights, and stands where a config does, before {checkpoint}: name it "
            "alone, if it carries its config, or name a config in its place"
        )
    if checkpoint is ...:
        called = source.filename if isinstance(source, Config) else source
        raise UserError(
            f"config {called or ''} stands alone: name its checkpoint, too, or checkpoint=None for random "
            f"weights. A file that carries its config ({', '.join(CHECKPOINTS)}) is named alone"
        )
    return checkpoint


def built_model(config: Mapping[str, Any]) -> BaseSegmentor:
    """Build ``model`` of a config, without what mmseg says about every network."""
    with building_quietly():
        return MODELS.build(config)


def chosen_device(asked: str | torch.device | None) -> torch.device:
    """The device that is asked for, or else the GPU if there is one, or else the CPU."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ", ".join(["cpu", *(f"cuda:{index}" for index in range(gpus))])
    try:
        device = torch.device(asked or ("cuda" if gpus else "cpu"))
    except RuntimeError as error:
        raise UserError(f"device {asked!r} is none; choose one of {there}") from error
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise UserError(
            f"device {str(device)!r} is not there: PyTorch {torch.__version__} sees {gpus or 'no'} "
            f"GPU{'' if gpus == 1 else 's'} here (CUDA_VISIBLE_DEVICES may hide some); choose one of {there}"
        )
    return device


def dataset_meta(config: Config) -> dict[str, Any]:
    """What :func:`danseg.datasets.metainfo.built_metainfo` says about the data set that a config tests on."""
    return built_metainfo(tested_dataset(config))


def _predicted_meta(config: Config, checkpoint: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """The meta information of what the model predicts: that of its training, if the checkpoint has it."""
    meta = checkpoint.get("meta") or {}
    # mmseg before 1.0 wrote CLASSES and PALETTE.
    trained = meta.get("dataset_meta") or dict(classes=meta.get("CLASSES"), palette=meta.get("PALETTE"))
    classes, palette = (trained.get(key) or () for key in ("classes", "palette"))
    if len(classes) == num_classes and not isinstance(classes, str):
        try:
            tested = dataset_meta(config)
        except UserError:  # what it tests on does not matter
            tested = None
        if tested is None or tested["classes"] != tuple(classes):
            given = dict(palette=palette) if len(palette) == num_classes else {}
            return built_metainfo(dict(type="BaseSegDataset", metainfo=dict(classes=list(classes), **given)))
        return tested
    tested = dataset_meta(config)
    if len(tested["classes"]) != num_classes:
        kind = tested_dataset(config)["type"]
        raise UserError(
            f"{kind}, which the config tests on, has {len(tested['classes'])} classes, the model "
            f"{num_classes}; {give_the_set(kind)}set decode_head.num_classes, or metainfo.classes of "
            "test_dataloader.dataset, to what the model was trained for"
        )
    return tested


def tested_dataset(config: Config) -> dict:
    """The config of the data set that a config tests on; of several (ConcatDataset), the first one.

    Raises:
        UserError: the config has no such data set.
    """
    if not (config.get("test_dataloader") or {}).get("dataset"):
        raise UserError(
            f"config {config.filename or ''} has no test_dataloader.dataset, whose pipeline and classes "
            "predictions need"
        )
    return next(inner_configs(config.test_dataloader.dataset))
