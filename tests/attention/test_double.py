"""DoubleAttention against A²-Nets' equations in float64."""

import pytest
import torch
from torch import nn

from danseg.attention import DoubleAttention
from danseg.ops import reference

PARAMETER_NAMES = {
    "DoubleAttention": [
        f"{name}_project.{kind}"
        for name in ("feature", "gather", "distribute", "out")
        for kind in ("weight", "bias")
    ]
}
NEUTRAL = {"DoubleAttention": ["out_project.weight", "out_project.bias"]}
# It adds one number to all of a descriptor's scores, which the softmax over positions cancels.
ZERO_GRADIENT = {"DoubleAttention": ["gather_project.bias"]}


def _make() -> DoubleAttention:
    torch.manual_seed(0)
    module = DoubleAttention(12, 5, 4).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)
    return module


def _input() -> torch.Tensor:
    return torch.randn(2, 12, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_equals_the_equation(device):
    module, x = _make().to(device), _input().to(device)
    layers = (module.feature_project, module.gather_project, module.distribute_project, module.out_project)
    weights = [(layer.weight.flatten(1), layer.bias) for layer in layers]
    expected = reference.double_attention(x.flatten(2), *weights)
    torch.testing.assert_close(module(x), expected.view_as(x), rtol=1e-10, atol=1e-12)


def test_each_descriptors_map_sums_to_one_over_one_images_positions(device):
    module, x = _make().to(device), _input().to(device)
    maps = module.attention_map(x)
    assert maps.shape == (2, 4, 5, 7)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, 4, dtype=torch.float64).to(device))
    assert torch.equal(module.attention_map(x[:1]), maps[:1])


def test_views_are_both_steps_and_what_a_position_gets_by_them(device):
    module, x = _make().to(device), _input().to(device)
    b, v = (
        torch.einsum("dc,bcn->bdn", layer.weight.flatten(1), x.flatten(2)) + layer.bias[:, None]
        for layer in (module.gather_project, module.distribute_project)
    )
    gather = b.exp() / b.exp().sum(dim=2, keepdim=True)  # (B, n, N), over positions
    distribute = v.exp() / v.exp().sum(dim=1, keepdim=True)  # over descriptors
    whole = torch.einsum("bdi,bdj->bij", distribute, gather)
    views = {view.name: view for view in module.attention_views()}
    names = tuple(f"descriptor {number}" for number in (1, 2, 3, 4))
    assert {name: (view.kind, view.values, view.parts) for name, view in views.items()} == {
        "": ("position", "shares", ()),
        "gather": ("everywhere", "shares", names),
        "distribute": ("everywhere", "gate", names),
    }
    begun = views[""].begin(x)
    for row, column in [(0, 0), (4, 6), (2, 5)]:
        rows = begun([(row, column)])
        torch.testing.assert_close(rows.flatten(2), whole[:, [row * 7 + column]], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(rows.sum(dim=(2, 3)), torch.ones_like(rows[:, :, 0, 0]))
    for name, expected in {"gather": gather, "distribute": distribute}.items():
        torch.testing.assert_close(views[name].begin(x)().flatten(2), expected, rtol=1e-10, atol=1e-12)
    # The map is how a value reaches a position: the block adds its rows times the features.
    a = torch.einsum("dc,bcn->bdn", module.feature_project.weight.flatten(1), x.flatten(2))
    a = a + module.feature_project.bias[:, None]
    got = torch.einsum("bij,bdj->bdi", whole, a).unflatten(2, (5, 7))
    torch.testing.assert_close(module(x), x + module.out_project(got), rtol=1e-10, atol=1e-12)
    assert torch.equal(module.without_attention(x, module(x)), x)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="attention_channels.*0"):
        DoubleAttention(12, attention_channels=0)
