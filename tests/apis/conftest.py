"""A tiny network on a tiny data set."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import nn

from danseg import apis

NUM_CLASSES = 11


def _make_config(
    root, *, head: dict | None = None, scale=(48, 40), mode: dict | None = None, size_divisor=None
):
    """Make the config of a random network with a few channels, on a CamVid tree at ``root``."""
    norm = dict(type="SyncBN")
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=scale, keep_ratio=True),
        dict(type="LoadAnnotations"),
        dict(type="PackSegInputs"),
    ]
    loader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(
            type="CamVidDataset",
            data_root=str(root),
            data_prefix=dict(img_path="val", seg_map_path="valannot"),
            pipeline=pipeline,
        ),
    )
    head = dict(type="DANetHead", pam_channels=4) if head is None else head
    return Config(
        dict(
            default_scope="mmseg",
            model=dict(
                type="EncoderDecoder",
                pretrained="open-mmlab://resnet18_v1c",  # must not be downloaded
                data_preprocessor=dict(
                    type="SegDataPreProcessor",
                    mean=[120.0, 110.0, 100.0],
                    std=[60.0, 61.0, 62.0],
                    bgr_to_rgb=True,
                    pad_val=0,
                    seg_pad_val=255,
                    test_cfg=dict(size_divisor=size_divisor) if size_divisor else None,
                ),
                backbone=dict(
                    type="ResNetV1c",
                    depth=18,
                    base_channels=8,
                    stem_channels=8,
                    strides=(1, 2, 1, 1),
                    dilations=(1, 1, 2, 4),
                    norm_cfg=norm,
                ),
                decode_head=dict(
                    in_channels=64, in_index=3, channels=16, num_classes=NUM_CLASSES, norm_cfg=norm, **head
                ),
                train_cfg=dict(),
                test_cfg=mode or dict(mode="whole"),
            ),
            test_dataloader=loader,
            test_evaluator=dict(type="ExactIoUMetric"),
            test_cfg=dict(),
        )
    )


@pytest.fixture
def camvid(tmp_path):
    """Two random frames of 60 x 72 in CamVid's layout."""
    root, rng = tmp_path / "camvid", np.random.default_rng(0)
    for folder in ("val", "valannot"):
        (root / folder).mkdir(parents=True)
    for name in ("a", "b"):
        coarse = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (72, 60), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / "val" / f"{name}.png"), image)
        cv2.imwrite(str(root / "valannot" / f"{name}.png"), rng.integers(0, 12, (60, 72), dtype=np.uint8))
    return root


def _make_checkpoint(config, path):
    """Write random weights, with running statistics and a scale that differ from their initial values."""
    torch.manual_seed(0)
    model = apis.load_model(config, None, "cpu")
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
        elif name.endswith("gamma.scale"):
            value.fill_(0.8)
        elif name.endswith("conv_seg.weight"):
            value.normal_()
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


@pytest.fixture
def make_config() -> Callable[..., Config]:
    """``make_config(root, **settings)``; see :func:`_make_config`."""
    return _make_config


@pytest.fixture
def make_checkpoint() -> Callable[[Config, Path], Path]:
    """``make_checkpoint(config, path)`` writes weights that fit the config."""
    return _make_checkpoint


@MODELS.register_module(force=True)
class NearSighted(nn.Module):
    """A network of stride 8 whose cells see only 7 pixels beyond their own: less than a tile's edge."""

    def __init__(self, init_cfg=None, pretrained=None, channels=16, in_channels=3):
        super().__init__()
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(in_channels if i == 0 else channels, channels, 3, 2, 1), nn.Tanh())
                for i in range(3)
            )
        )

    def forward(self, x):
        return [self.layers(x)]


@pytest.fixture
def near_sighted(camvid, make_config):
    """``near_sighted(align_corners=..., out_channels=...)``: a model whose test pipeline resizes nothing.

    ``device``: where it is; ``channels``: of its images; ``loader``: arguments of the pipeline's first step;
    ``steps``: more steps.
    """

    def make(*, device="cpu", channels=3, loader=None, steps=(), **head):
        fields = dict(type="FCNHead", num_convs=0, concat_input=False)
        config = make_config(camvid, head=fields)
        config.model.backbone = dict(type="NearSighted", in_channels=channels)
        if steps or channels != 3:
            config.model.data_preprocessor.update(mean=None, std=None)
        config.model.decode_head.update(in_channels=16, channels=16, in_index=0, **head)
        pipeline = config.test_dataloader.dataset.pipeline
        first, *others = [step for step in pipeline if step["type"] != "Resize"]
        config.test_dataloader.dataset.pipeline = [{**first, **(loader or {})}, *steps, *others]
        classes = [str(i) for i in range(config.model.decode_head.num_classes)]
        config.test_dataloader.dataset.update(type="BaseSegDataset", metainfo=dict(classes=classes))
        torch.manual_seed(0)
        model = apis.load_model(config, None, "cpu")
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.3)
        return model.to(device)

    return make
