"""--amp: the type that is asked for, on the device that there is."""

import pytest
import torch
from mmengine.config import Config
from torch import nn

from danseg.engine import precision
from danseg.errors import UserError


def wrapped(**extra):
    return Config({"optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD"}, **extra}})


def test_the_default_follows_the_device(monkeypatch):
    for device, kind in (("cpu", "BFloat16OptimWrapper"), ("cuda", "AmpOptimWrapper")):
        monkeypatch.setattr(precision, "get_device", lambda device=device: device)
        config = wrapped()
        precision.use_mixed_precision(config, "auto")
        assert config.optim_wrapper.type == kind


def test_float16_on_cpu_is_refused(monkeypatch):
    monkeypatch.setattr(precision, "get_device", lambda: "cpu")
    with pytest.raises(UserError, match="needs a GPU; on CPU use --amp bfloat16"):
        precision.use_mixed_precision(wrapped(), "float16")


def test_forward_passes_run_in_bfloat16():
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    wrapper = precision.BFloat16OptimWrapper(optimizer=optimizer)
    with wrapper.optim_context(layer):
        assert layer(torch.ones(1, 2)).dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32
