"""The summary at the start of a run: lines that the tests of training and testing do not cover."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from torch import nn

from danseg.engine.bfloat16_optim_wrapper import BFloat16OptimWrapper
from danseg.engine.runner import DansegRunner
from danseg.engine.summary import _devices, _optimiser, augmented_views, summary


def wrapper(kind=OptimWrapper, **arguments):
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    optimizer.param_groups[0]["initial_lr"] = 0.2  # during a warm-up
    return kind(optimizer=optimizer, **arguments)


def test_learning_rate_and_precision_are_told():
    assert _optimiser(wrapper()) == "SGD, learning rate 0.2, float32"
    assert _optimiser(wrapper(BFloat16OptimWrapper)).endswith("0.2, bfloat16 (mixed precision)")
    half = AmpOptimWrapper.__new__(AmpOptimWrapper)  # its __init__ requires a GPU
    half.optimizer, half.cast_dtype = wrapper().optimizer, None
    assert _optimiser(half).endswith("0.2, float16 (mixed precision)")
    both = OptimWrapperDict(one=wrapper(), two=wrapper())
    assert _optimiser(both).startswith("one: SGD, learning rate 0.2, float32; two: SGD")


@pytest.mark.parametrize(
    ("capability", "precision", "override", "told"),
    [
        ((9, 0), None, "1", "; float32 convolutions in TF32"),
        ((7, 5), None, "1", ""),  # Turing has no TF32
        ((9, 0), None, "0", ""),
        ((9, 0), "ieee", "1", ""),
    ],
)
def test_convolutions_in_tf32_are_told(monkeypatch, capability, precision, override, told):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    network = SimpleNamespace(data_preprocessor=SimpleNamespace(device=torch.device("cuda", 0)))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=precision is None):
        assert _devices(SimpleNamespace(network=network, world_size=2)) == f"2 processes on a GPU{told}"


@pytest.mark.parametrize("neck", [None, dict(type="FPN", in_channels=[64], out_channels=8, num_outs=1)])
def test_epochs_and_more_parts_of_a_network(tiny, neck):
    config = tiny({"model.neck": neck, "train_dataloader.sampler": dict(type="DefaultSampler", shuffle=True)})
    config.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2, val_interval=1)
    runner = DansegRunner.from_cfg(config)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner._val_loop = runner.build_val_loop(runner._val_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    said = summary(runner)
    assert "6 iterations of 2 images, 2.0 times through the data; validation every 1 epochs" in said
    assert ("ResNetV1c, FPN, DANetHead" in said) == (neck is not None)


@pytest.mark.parametrize("kind", ["TestTimeAug", "mmcv.TestTimeAug"])
def test_the_views_of_an_augmentation_are_told(kind):
    transforms = [
        [dict(type="Resize", scale_factor=0.5), dict(type="Resize", scale=(512, 256), keep_ratio=True)],
        [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
        [dict(type="LoadAnnotations")],
    ]
    pipeline = [dict(type="LoadImageFromFile"), dict(type=kind, transforms=transforms)]
    config = Config(dict(model=dict(type="LeanTTAModel", module=dict()), tta_pipeline=pipeline))
    assert augmented_views(config) == []  # it wraps no network
    config.model.module = dict(type="LeanEncoderDecoder")
    assert augmented_views(config) == ["x0.5", "x0.5 flipped", "512x256", "512x256 flipped"]
    transforms[:2] = []
    config = Config(dict(model=config.model, tta_pipeline=pipeline))
    assert augmented_views(config) == ["as it is"]
