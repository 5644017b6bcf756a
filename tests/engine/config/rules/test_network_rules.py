"""Backbone, neck, heads, preprocessing and test mode: each config is broken in one place."""

import pytest

from broken_config import messages, only_names, tiny_with
from danseg.engine.config.agreement import disagreements

HEAD, BACKBONE, PREPROCESSOR = "model.decode_head", "model.backbone", "model.data_preprocessor"
TEST = "model.test_cfg"


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({f"{PREPROCESSOR}.mean": [1.0, 2.0]}, [f"{PREPROCESSOR}.mean", f"{BACKBONE}.in_channels"]),
        ({f"{PREPROCESSOR}.std": [1.0, 2.0]}, [f"{PREPROCESSOR}.std", f"{BACKBONE}.in_channels"]),
        ({f"{PREPROCESSOR}.std": None}, [f"{PREPROCESSOR}.mean", f"{PREPROCESSOR}.std"]),
        ({f"{PREPROCESSOR}.std": [1.0, 0, 1.0]}, [f"{PREPROCESSOR}.std"]),
        ({f"{PREPROCESSOR}.size": None}, [f"{PREPROCESSOR}.size", f"{PREPROCESSOR}.size_divisor"]),
        ({f"{PREPROCESSOR}.size_divisor": 8}, [f"{PREPROCESSOR}.size", f"{PREPROCESSOR}.size_divisor"]),
        (
            {f"{PREPROCESSOR}.size": (16, 64)},
            ["train_dataloader.dataset.pipeline.3.crop_size", f"{PREPROCESSOR}.size"],
        ),
        ({"model.data_preprocessor": None}, ["model.data_preprocessor"]),
        ({f"{HEAD}.in_channels": 2048}, [f"{HEAD}.in_channels"]),
        ({f"{HEAD}.in_index": 2}, [f"{HEAD}.in_channels"]),
        ({f"{HEAD}.in_index": 4}, [f"{HEAD}.in_index"]),
        ({"model.auxiliary_head.in_index": -5}, ["model.auxiliary_head.in_index"]),
        ({f"{HEAD}.input_transform": "resize_concat"}, [f"{HEAD}.input_transform", f"{HEAD}.in_index"]),
        (
            {
                f"{HEAD}.input_transform": "resize_concat",
                f"{HEAD}.in_index": [2, 3],
                f"{HEAD}.in_channels": [32],
            },
            [f"{HEAD}.in_index", f"{HEAD}.in_channels"],
        ),
        (
            {
                f"{HEAD}.input_transform": "resize_concat",
                f"{HEAD}.in_index": [2, 3],
                f"{HEAD}.in_channels": [8, 64],
            },
            [f"{HEAD}.in_channels"],
        ),
        ({f"{TEST}.mode": "sliding"}, [f"{TEST}.mode"]),
        ({f"{TEST}.stride": None}, [f"{TEST}.stride", f"{TEST}.mode"]),
        ({f"{TEST}.crop_size": None}, [f"{TEST}.crop_size", f"{TEST}.mode"]),
        ({f"{TEST}.crop_size": 32}, [f"{TEST}.crop_size"]),
        ({f"{TEST}.stride": (0, 42)}, [f"{TEST}.stride"]),
        ({f"{TEST}.stride": (33, 42)}, [f"{TEST}.stride", f"{TEST}.crop_size"]),
    ],
)
def test_a_network_that_does_not_fit_together(options, keys):
    only_names(messages(options), *keys)


def test_a_misspelt_test_mode_is_not_the_default_one():
    config = tiny_with({})
    config.model.test_cfg = dict(mod="slide", crop_size=(32, 64), stride=(21, 42))
    only_names(list(disagreements(config, "test")), f"{TEST}.mod")


def test_the_number_of_loaded_channels():
    options = {f"{BACKBONE}.in_channels": 1, f"{PREPROCESSOR}.mean": [1.0], f"{PREPROCESSOR}.std": [1.0]}
    train, val = messages(options)
    assert "train_dataloader.dataset.pipeline.0.type='LoadImageFromFile' loads 3" in train
    assert "val_dataloader.dataset.pipeline.0.type='LoadImageFromFile' loads 3" in val
    grey = {f"{split}_dataloader.dataset.pipeline.0.color_type": "grayscale" for split in ("train", "val")}
    assert messages({**options, **grey}) == []


def test_an_fpn_between_backbone_and_head():
    config = tiny_with({f"{HEAD}.in_channels": 16, "model.auxiliary_head.in_channels": 16})
    config.model.neck = dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=16, num_outs=4)
    assert list(disagreements(config, "train")) == []
    config.model.decode_head.in_channels = 64
    only_names(list(disagreements(config, "train")), f"{HEAD}.in_channels")
    config.model.decode_head.in_channels = 16
    config.model.neck.in_channels = [8, 16, 32, 128]
    only_names(list(disagreements(config, "train")), "model.neck.in_channels")


def test_the_same_network_with_augmentation_around_it():
    config = tiny_with({f"{HEAD}.in_channels": 2048})
    config.model = dict(type="SegTTAModel", module=config.model)
    only_names(list(disagreements(config, "test")), f"{HEAD}.in_channels")
