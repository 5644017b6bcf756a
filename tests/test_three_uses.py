"""Every attention module in its three uses, trained: alone, as a head, and as a plugin of a ResNet."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import danseg.attention
from danseg.registry import OWNED_BY_MMCV
from own_test import own_test

NAMES = sorted(set(danseg.attention.__all__) - {"NonLocal1d", "NonLocal3d"})  # their input is not an image

# They replace a 3x3 convolution and have no residual. After conv3 they could not learn: ResNet starts the
# normalisation before them at zero, and a ReLU has no gradient there, so that it would stay at zero.
ENDS_IN_RELU = ("SelectiveKernel", "SplitAttention")

every_module = pytest.mark.parametrize("name", NAMES)


def config_name(name: str) -> str:
    """The module's name in a config."""
    return f"danseg.{name}" if name in OWNED_BY_MMCV else name


def train(network: nn.Module, modules: list[nn.Module], loss: Callable[[], Tensor]) -> dict:
    """Train a network that holds ``modules``, instances of one class, for a few steps on one batch.

    Returns the losses and the names of the modules' parameters that changed in at least one of them.
    """
    before = [{name: p.detach().clone() for name, p in module.named_parameters()} for module in modules]
    optimizer = torch.optim.Adam(network.train().parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    changed = {
        name
        for module, old in zip(modules, before, strict=True)
        for name, p in module.named_parameters()
        if not torch.equal(p, old[name])
    }
    return dict(losses=losses, changed=sorted(changed))


ALONE = f"""
import importlib.util, json, sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

find_spec = importlib.util.find_spec  # as if mmseg were not installed
importlib.util.find_spec = lambda name, *rest: None if name == "mmseg" else find_spec(name, *rest)
import danseg.attention

{inspect.getsource(train)}

torch.set_num_threads(1)
results = dict()
for name in sys.argv[1:]:
    torch.manual_seed(0)
    module = getattr(danseg.attention, name)(32)
    network = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), module, nn.Conv2d(32, 5, 1))
    x = torch.randn(4, 3, 9, 13)
    label = x.argmax(dim=1)
    results[name] = train(network, [module], lambda: cross_entropy(network(x), label))
assert not [name for name in sys.modules if name.startswith(("mmcv", "mmseg", "mmengine"))]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def alone() -> dict:
    """Results of all modules, trained in one process that has only torch and ``danseg.attention``."""
    run = subprocess.run([sys.executable, "-c", ALONE, *NAMES], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def has_learnt(result: dict) -> bool:
    return result["losses"][-1] < 0.95 * result["losses"][0] and bool(result["changed"])


def zero_gradient(name: str) -> list[str]:
    """The module's parameters whose true gradient is zero, from the module's own test file."""
    return getattr(own_test(getattr(danseg.attention, name)), "ZERO_GRADIENT", {}).get(name, [])


def test_there_are_modules():
    assert len(NAMES) >= 13


@every_module
def test_alone(name, alone):
    assert has_learnt(alone[name])


@every_module
def test_as_a_head(name):
    torch.manual_seed(0)
    head = MODELS.build(
        dict(
            type="AttentionHead",
            attention=dict(type=config_name(name)),
            in_channels=24,
            channels=32,
            num_classes=5,
            dropout_ratio=0,
            norm_cfg=dict(type="BN"),
        )
    )
    head.init_weights()
    x = torch.randn(4, 24, 9, 13)
    label = nn.Upsample(scale_factor=4)(x[:, :5]).argmax(dim=1, keepdim=True)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in label]
    assert has_learnt(train(head, [head.attention], lambda: head.loss([x], samples, None)["loss_ce"]))


@pytest.mark.slow
@every_module
def test_as_a_plugin(name):
    torch.manual_seed(0)
    plugin = dict(
        cfg=dict(type=config_name(name)),
        stages=(False, True, True, True),
        position="after_conv2" if name in ENDS_IN_RELU else "after_conv3",
    )
    with DefaultScope.overwrite_default_scope("mmseg"):  # as a config does
        backbone = MODELS.build(
            dict(
                type="ResNet",
                depth=50,
                stem_channels=8,
                base_channels=4,
                strides=(1, 2, 1, 1),
                dilations=(1, 1, 2, 4),
                norm_cfg=dict(type="BN"),
                plugins=[plugin],
            )
        )
    kind = getattr(danseg.attention, name)
    modules = [module for module in backbone.modules() if type(module) is kind]
    assert len(modules) == 4 + 6 + 3
    backbone.init_weights()
    # The backbone initialises all its layers alike; what a module starts at zero must be zero after it.
    at_zero = [key for key, parameter in kind(32).named_parameters() if not parameter.any()]
    assert not [key for module in modules for key in at_zero if module.get_parameter(key).any()]

    network = nn.ModuleList([backbone, nn.Conv2d(128, 5, 1)])
    x, label = torch.randn(4, 3, 40, 56), torch.randint(0, 5, (4, 5, 7))
    result = train(network, modules, lambda: cross_entropy(network[1](backbone(x)[-1]), label))
    assert has_learnt(result)
    # Compared over all 13 together: a hidden layer of one unit may be dead in some of them.
    unchanged = {key for key, _ in kind(32).named_parameters()} - set(result["changed"])
    assert unchanged <= set(zero_gradient(name))
