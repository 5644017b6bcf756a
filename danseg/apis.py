"""A trained model in three calls: load it, segment an image, see where it looked.

Example::

    model = load_model("configs/danet_r50_cityscapes.py", "best.pth")
    labels = predict(model, "street.png")                            # (H, W) class ids
    maps = attention_maps(model, "street.png", [(640, 400)])         # from pixel x=640, y=400
    heat = maps["decode_head.pam"].over_image()                      # (1, H, W)
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.models import BaseSegmentor
from mmseg.registry import DATASETS, MODELS

from danseg.engine.checkpoint import load_weights
from danseg.engine.config import load_config
from danseg.engine.runner import drop_pretrained
from danseg.errors import UserError
from danseg.visualization import AttentionMaps, Placement, attention_modules, read_image, record_attention


def load_model(
    config: str | Path | Config, checkpoint: str | Path | None, device: str | torch.device | None = None
) -> BaseSegmentor:
    """Build a config's model for inference.

    Args:
        config: a config file or a config already read, which is not changed.
        checkpoint: weights; every parameter must fit. None leaves the model at random.
        device: where to put the model; the GPU where there is one, else the CPU, by default.

    Returns:
        The model in eval mode. ``model.cfg`` holds the config, ``model.dataset_meta`` the
        data set's ``classes`` and ``palette``.

    Raises:
        UserError: the config or the checkpoint cannot be read, or they do not fit each other.
    """
    config = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    init_default_scope(config.get("default_scope", "mmseg"))
    drop_pretrained(config.model)  # all weights come from the checkpoint
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
    dataset = _test_dataset(config)
    meta = {**DATASETS.get(dataset["type"]).METAINFO, **(dataset.get("metainfo") or {})}
    return dict(classes=tuple(meta["classes"]), palette=[tuple(colour) for colour in meta["palette"]])


@torch.no_grad()
def predict(model: BaseSegmentor, image: str | Path | np.ndarray) -> np.ndarray:
    """Segment an image through the config's test pipeline and test mode (whole or sliding).

    Args:
        model: from :func:`load_model`.
        image: a file, or (H, W, 3) uint8 RGB.

    Returns:
        (H, W) int64 class ids, at the image's own size.

    Raises:
        UserError: the image is missing or cannot be read.
    """
    result = model.test_step(_collate(_prepare(model, image)))[0]
    return result.pred_sem_seg.data[0].cpu().numpy().astype(np.int64)


@torch.no_grad()
def attention_maps(
    model: BaseSegmentor, image: str | Path | np.ndarray, positions: Sequence[tuple[int, int]]
) -> dict[str, AttentionMaps]:
    """Where the model looks from some pixels of an image.

    The image goes through the network whole, at the size the test pipeline gives it, also
    when the config tests by sliding windows: a window's attention ends at its edges, and
    a picture of the whole image is what explains. Under sliding windows the maps are hence
    those of a whole pass and not of any one window.

    Args:
        model: from :func:`load_model`.
        image: a file, or (H, W, 3) uint8 RGB.
        positions: pairs (x, y) in pixels of the image. A position's map is that of the
            feature cell which holds the pixel's centre.

    Returns:
        The maps of every module that can show any, by the module's path in the model.

    Raises:
        UserError: the image cannot be read, a position lies outside it, there is no
            position, or the model has no attention module with maps.
    """
    if not attention_modules(model):
        raise UserError(
            f"{type(model.decode_head).__name__} has no attention module that can show a map for a position; "
            "DANetHead with with_pam=True has one (decode_head.pam)"
        )
    if not positions:
        raise UserError("name at least one position (x, y) to show the attention of")
    data = _collate(_prepare(model, image))
    with record_attention(model) as recorded:
        data = model.data_preprocessor(data, training=False)
        model(**data, mode="tensor")
    placement = _placement(data["inputs"].shape[-2:], data["data_samples"][0].metainfo)
    maps = {}
    for path, module in recorded.items():
        try:
            cells = [placement.cell(position, module.map_size) for position in positions]
        except ValueError as error:
            raise UserError(str(error)) from error
        rows = module.rows(cells)[0].float().cpu().numpy()  # (P, h, w)
        maps[path] = AttentionMaps(path, [tuple(p) for p in positions], rows, placement, module.scale)
    return maps


def _test_dataset(config: Config) -> dict:
    """The config of the tested data set, inside wrappers such as ConcatDataset."""
    dataset = config.test_dataloader.dataset
    while "dataset" in dataset or "datasets" in dataset:
        dataset = dataset["dataset"] if "dataset" in dataset else dataset["datasets"][0]
    return dataset


def _prepare(model: BaseSegmentor, image: str | Path | np.ndarray) -> dict:
    """One image through the test pipeline, without its label."""
    steps = [step for step in _test_dataset(model.cfg)["pipeline"] if step["type"] != "LoadAnnotations"]
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} of {image.dtype}")
        steps = [{**steps[0], "type": "LoadImageFromNDArray"}, *steps[1:]]
        return Compose(steps)(dict(img=cv2.cvtColor(image, cv2.COLOR_RGB2BGR)))  # pipelines work in BGR
    try:
        return Compose(steps)(dict(img_path=str(image)))
    except Exception:
        read_image(image)  # names the file when that is what is wrong with it
        raise


def _collate(data: dict) -> dict:
    return dict(inputs=[data["inputs"]], data_samples=[data["data_samples"]])


def _placement(input_size: Sequence[int], meta: dict) -> Placement:
    """Where mmseg put an image, from what its transforms and preprocessor noted down."""
    left, _, top, _ = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    return Placement(
        image_size=tuple(meta["ori_shape"][:2]),
        input_size=tuple(input_size),
        content_size=tuple(meta["img_shape"][:2]),
        offset=(top, left),
    )
