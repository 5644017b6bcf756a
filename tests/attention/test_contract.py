"""What every attention module promises, checked over all of ``danseg.attention.__all__``."""

import copy
import inspect

import pytest
import torch
from torch import nn

import danseg.attention

MODULES = {name: getattr(danseg.attention, name) for name in danseg.attention.__all__}

# Parameter names are an interface: checkpoints hold them. Add a line for a new module.
PARAMETER_NAMES = {
    "PositionAttention": [
        "key_project.weight",
        "key_project.bias",
        "query_project.weight",
        "query_project.bias",
        "value_project.weight",
        "value_project.bias",
        "gamma.scale",
    ],
    "ChannelAttention": ["gamma.scale"],
}
PARAMETER_NAMES["DualAttention"] = [f"pam.{name}" for name in PARAMETER_NAMES["PositionAttention"]] + [
    "cam.gamma.scale"
]

IN_CHANNELS = 16


def make(name: str, dtype: torch.dtype = torch.float32, in_channels: int = IN_CHANNELS) -> nn.Module:
    """The module in evaluation mode with every zero-initialised scale switched on."""
    torch.manual_seed(0)
    module = MODULES[name](in_channels)
    for parameter in module.parameters():
        if parameter.dim() == 0:
            nn.init.constant_(parameter, 0.7)
    return module.to(dtype).eval()


def feature_map(
    dtype: torch.dtype = torch.float32, batch: int = 2, in_channels: int = IN_CHANNELS
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, in_channels, 5, 7, generator=generator, dtype=torch.float64).to(dtype)


def test_there_are_modules():
    assert len(MODULES) >= 3


every_module = pytest.mark.parametrize("name", sorted(MODULES))


@every_module
def test_signature(name):
    parameters = list(inspect.signature(MODULES[name].__init__).parameters.values())[1:]
    assert parameters[0].name == "in_channels"
    assert all(p.default is not inspect.Parameter.empty for p in parameters[1:])
    assert all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters)
    with pytest.raises(ValueError, match="0"):
        MODULES[name](0)


@every_module
def test_docstring_names_its_paper(name):
    assert "arXiv" in MODULES[name].__doc__
    assert "(B, C, H, W)" in MODULES[name].__doc__


@every_module
def test_parameter_names_are_frozen(name):
    assert [n for n, _ in make(name).named_parameters()] == PARAMETER_NAMES[name]


@every_module
@pytest.mark.parametrize("in_channels", [1, 3, IN_CHANNELS])
def test_keeps_shape_and_dtype_and_leaves_its_input_alone(name, in_channels):
    x = feature_map(in_channels=in_channels)
    kept = x.clone()
    out = make(name, in_channels=in_channels)(x)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert torch.equal(x, kept)


@every_module
def test_is_not_the_identity(name):
    x = feature_map()
    assert not torch.allclose(make(name)(x), x, atol=1e-2)


@every_module
def test_an_image_does_not_see_its_batch_mates(name):
    module, x = make(name, torch.float64), feature_map(torch.float64)
    torch.testing.assert_close(module(x)[1:], module(x[1:]), rtol=1e-10, atol=1e-12)


@every_module
def test_gradient_reaches_every_parameter(name):
    module, x = make(name, torch.float64).train(), feature_map(torch.float64).requires_grad_()
    module(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    for parameter_name, parameter in module.named_parameters():
        assert parameter.grad is not None, parameter_name
        if parameter_name.endswith("key_project.bias"):
            continue  # adds one number to a whole row of energies, which the softmax cancels
        assert parameter.grad.abs().sum() > 0, parameter_name


@every_module
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_precisions_agree_with_float64(name, dtype, tolerance):
    module = make(name, dtype)
    x = feature_map(dtype)
    wide = copy.deepcopy(module).double()(x.double())
    out = module(x)
    assert out.dtype == dtype
    assert (out.double() - wide).abs().max() / wide.abs().max() < tolerance


@every_module
def test_runs_under_autocast(name):
    module, x = make(name), feature_map()
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
        out.float().square().mean().backward()
    assert out.dtype == x.dtype
    assert (out - module(x)).abs().max() / module(x).abs().max() < 3e-2


@every_module
def test_large_activations_do_not_overflow(name):
    x = torch.full((1, IN_CHANNELS, 64, 64), 8.0, dtype=torch.float16)  # 4096 positions: energies of 262144
    assert make(name, torch.float16)(x).isfinite().all()


@every_module
def test_state_dict_round_trip_and_deepcopy(name):
    module, x = make(name), feature_map()
    other = MODULES[name](IN_CHANNELS).eval()
    other.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(module(x), other(x))
    assert torch.equal(module(x), copy.deepcopy(module)(x))


@every_module
def test_loads_the_authors_one_element_scales(name):
    module = make(name)
    state = {n: v.reshape(1) if v.dim() == 0 else v for n, v in module.state_dict().items()}
    MODULES[name](IN_CHANNELS).load_state_dict(state, strict=True)


@every_module
def test_compiles_and_exports(name):
    module, x = make(name), feature_map()
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))


@every_module
def test_takes_channels_last(name):
    module, x = make(name), feature_map()
    torch.testing.assert_close(
        module(x.to(memory_format=torch.channels_last)), module(x), rtol=1e-5, atol=1e-5
    )
