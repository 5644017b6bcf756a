"""A tiny network on a tiny data set."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

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
