"""What every attention module promises, for the arguments that make another network of it.

A module's own test file names them: ``VARIANTS``, by class. Their equations are compared there;
``tests/attention/test_contract.py`` has these checks for the modules' defaults and for all modes.
"""

import copy

import pytest
import torch

import danseg.attention
from drawn_attention import IN_CHANNELS, feature_map, make
from own_test import own_test

VARIANTS = [
    (name, arguments)
    for name in sorted(danseg.attention.__all__)
    for arguments in getattr(own_test(getattr(danseg.attention, name)), "VARIANTS", {}).get(name, [])
]
every_variant = pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=str)


def test_there_are_variants():
    assert len(VARIANTS) > 5


@every_variant
def test_it_is_another_network(name, arguments, device):
    x = feature_map(name, device, batch=4)
    module = make(name, device, **arguments)
    assert module(x).shape == x.shape
    assert not torch.allclose(module(x), x, atol=1e-2)
    assert not torch.allclose(module(x), make(name, device)(x), atol=1e-4)


@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_precisions_agree_with_float64(name, arguments, dtype, device):
    module, x = make(name, device, dtype, **arguments), feature_map(name, device, dtype, batch=4)
    wide = copy.deepcopy(module).double()(x.double())
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    assert module(x).dtype == dtype
    assert (module(x).double() - wide).abs().max() / wide.abs().max() < tolerance
    if dtype != torch.float32:
        module, x = module.float(), x.float()
        with torch.autocast(device.type, dtype):
            out = module(x)
            out.float().square().mean().backward()
        assert (out.double() - wide).abs().max() / wide.abs().max() < tolerance


@every_variant
def test_gradients_reach_every_parameter_and_an_image_does_not_see_its_batch_mates(name, arguments, device):
    module, x = (
        make(name, device, torch.float64, **arguments),
        feature_map(name, device, torch.float64, batch=4),
    )
    torch.testing.assert_close(module(x)[2:], module(x[2:]), rtol=1e-10, atol=1e-12)
    module.train()(x).square().sum().backward()
    assert not [n for n, parameter in module.named_parameters() if parameter.grad is None]
    weights = {n: parameter.grad.abs().max() for n, parameter in module.named_parameters() if "bias" not in n}
    assert min(weights.values()) > 1e-9 * max(weights.values())


@every_variant
def test_weights_and_copies_compute_the_same(name, arguments, device):
    module, x = make(name, device, **arguments), feature_map(name, device, batch=4)
    other = getattr(danseg.attention, name)(IN_CHANNELS, **arguments).to(device).eval()
    other.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(module(x), other(x))
    assert torch.equal(module(x), copy.deepcopy(module)(x))


@pytest.mark.slow
@every_variant
def test_exports(name, arguments):
    module, x = make(name, "cpu", **arguments), feature_map(name, "cpu", batch=4)
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))
