"""TripletAttention against its equations in float64."""

import pytest
import torch
from torch import nn

from danseg.attention import TripletAttention
from danseg.ops import reference
from shown_view import shown

PARAMETER_NAMES = {
    "TripletAttention": [
        f"{branch}.conv.{name}"
        for branch in ("cw", "hc", "hw")
        for name in ("conv.weight", "bn.weight", "bn.bias")
    ]
}
NEUTRAL = {"TripletAttention": [f"{branch}.conv.bn.weight" for branch in ("cw", "hc", "hw")]}


def _module(kernel_size: int = 3) -> TripletAttention:
    torch.manual_seed(0)
    module = TripletAttention(6, kernel_size).double().eval()
    for branch in (module.cw, module.hc, module.hw):
        nn.init.uniform_(branch.conv.bn.weight, 0.5, 1.5)
        nn.init.normal_(branch.conv.bn.bias, 0, 0.3)
        nn.init.normal_(branch.conv.bn.running_mean, 0, 0.3)
        nn.init.uniform_(branch.conv.bn.running_var, 0.5, 1.5)
    return module


@pytest.mark.parametrize("kernel_size", [3, 7])
def test_equals_the_equation(kernel_size, device):
    module, x = _module(kernel_size).to(device), torch.randn(2, 6, 5, 7, dtype=torch.float64).to(device)
    gates = []
    for branch in (module.cw, module.hc, module.hw):
        bn = branch.conv.bn
        gates.append((branch.conv.conv.weight, [bn.weight, bn.bias, bn.running_mean, bn.running_var]))
    expected = reference.triplet_attention(x, gates)
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)


def test_map_is_the_gate_over_positions(device):
    module, x = _module().to(device), torch.randn(2, 6, 5, 7, dtype=torch.float64).to(device)
    weight = module.attention_map(x)
    assert weight.shape == (2, 1, 5, 7)
    without = module(x) - x * weight / 3
    nn.init.constant_(module.hw.conv.bn.bias, -1e3)  # shuts the gate
    torch.testing.assert_close(module(x), without, rtol=1e-10, atol=1e-12)


def test_views_are_the_gate_of_positions_and_the_means_of_all_three(device):
    module, x = _module().to(device), torch.randn(2, 6, 5, 7, dtype=torch.float64).to(device)
    gates = []
    for branch in (module.cw, module.hc, module.hw):
        bn = branch.conv.bn
        gates.append((branch.conv.conv.weight, [bn.weight, bn.bias, bn.running_mean, bn.running_var]))
    gate = reference.triplet_attention(x, gates) / x  # (B, C, H, W)
    shut = [gates[0], gates[1], (gates[2][0], [*gates[2][1][:1], gates[2][1][1] - 1e3, *gates[2][1][2:]])]
    of_positions = 3 * (gate - reference.triplet_attention(x, shut) / x)
    for name, want in (
        ("", of_positions[:, :1]),
        ("mean gate", gate.mean(dim=1, keepdim=True)),
        ("channels", gate.mean(dim=(2, 3))[:, None]),
    ):
        torch.testing.assert_close(shown(module, x, name), want, rtol=1e-9, atol=1e-10)
    without = x * gate.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(module.without_attention(x, module(x)), without, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("branch", ["cw", "hc", "hw"])
def test_every_branch_counts(branch, device):
    module, x = _module().to(device), torch.randn(1, 6, 5, 7, dtype=torch.float64).to(device)
    out = module(x)
    nn.init.constant_(getattr(module, branch).conv.bn.bias, -1e3)
    assert (module(x) - out).abs().max() > 1e-2


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="kernel_size must be odd.*got 6"):
        TripletAttention(8, kernel_size=6)
