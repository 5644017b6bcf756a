"""CBAM against its equations in float64."""

import pytest
import torch
from torch import nn

from danseg.attention import CBAM
from danseg.ops import reference
from shown_view import shown

PARAMETER_NAMES = {
    "CBAM": [
        "mlp.0.weight",
        "mlp.0.bias",
        "mlp.2.weight",
        "mlp.2.bias",
        "spatial_gate.conv.conv.weight",
        "spatial_gate.conv.bn.weight",
        "spatial_gate.conv.bn.bias",
    ]
}
NEUTRAL = {"CBAM": ["mlp.2.weight", "mlp.2.bias", "spatial_gate.conv.bn.weight"]}


def _module(kernel_size: int = 3) -> CBAM:
    torch.manual_seed(0)
    module = CBAM(12, 3, kernel_size).double().eval()
    bn = module.spatial_gate.conv.bn
    for tensor, value in ((bn.weight, 1.3), (bn.bias, 0.2), (bn.running_mean, 0.4), (bn.running_var, 0.6)):
        nn.init.constant_(tensor, value)
    return module


def _reference_weights(module: CBAM) -> tuple:
    mlp = [t for i in (0, 2) for t in (module.mlp[i].weight.flatten(1), module.mlp[i].bias)]
    bn = module.spatial_gate.conv.bn
    norm = [bn.weight, bn.bias, bn.running_mean, bn.running_var]
    return mlp, module.spatial_gate.conv.conv.weight, norm


@pytest.mark.parametrize("kernel_size", [3, 7])
def test_equals_the_equations(kernel_size, device):
    module, x = _module(kernel_size).to(device), torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    expected = reference.cbam(x, *_reference_weights(module))
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)


def test_map_is_that_of_the_equation(device):
    module, x = _module().to(device), torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    expected = reference.cbam_map(x, *_reference_weights(module))
    torch.testing.assert_close(module.attention_map(x), expected.unsqueeze(1), rtol=1e-10, atol=1e-12)


def test_views_are_both_gates_and_without_them_their_mean_is_left(device):
    module, x = _module().to(device), torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    mlp, *spatial = _reference_weights(module)
    channels = (reference.cbam_channel(x, *mlp) / x)[..., 0, 0]
    positions = reference.cbam_map(x, mlp, *spatial)
    torch.testing.assert_close(shown(module, x, "channels"), channels[:, None], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(shown(module, x), positions[:, None], rtol=1e-9, atol=1e-12)
    gates = reference.cbam(x, mlp, *spatial) / x
    mean = gates.flatten(1).mean(dim=1)[:, None, None, None]
    torch.testing.assert_close(module.without_attention(x, module(x)), x * mean, rtol=1e-9, atol=1e-12)


def test_both_gates_count(device):
    module, x = _module().to(device), torch.randn(1, 12, 5, 7, dtype=torch.float64).to(device)
    gates = module(x) / x
    assert (gates[:, 1:] / gates[:, :1] - 1).abs().max() > 1e-2  # differs between channels
    assert (gates[..., 1:] / gates[..., :1] - 1).abs().max() > 1e-2  # and between positions


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="reduction.*at least 1.*-2"):
        CBAM(8, -2)
    with pytest.raises(ValueError, match="kernel_size must be odd.*got 4"):
        CBAM(8, kernel_size=4)
