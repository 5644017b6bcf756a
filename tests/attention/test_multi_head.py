"""MultiHeadSelfAttention against the paper's equation in float64 and against PyTorch's own."""

import pytest
import torch
from torch import nn

from danseg.attention import MultiHeadSelfAttention
from danseg.ops import reference

PARAMETER_NAMES = {
    "MultiHeadSelfAttention": [
        f"{name}_project.{kind}" for name in ("query", "key", "value", "out") for kind in ("weight", "bias")
    ]
}
NEUTRAL = {"MultiHeadSelfAttention": ["out_project.weight", "out_project.bias"]}
# It adds one number to a whole row of energies, which the softmax cancels.
ZERO_GRADIENT = {"MultiHeadSelfAttention": ["key_project.bias"]}


def _make(heads: int = 4) -> MultiHeadSelfAttention:
    torch.manual_seed(0)
    module = MultiHeadSelfAttention(12, heads).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)
    return module


def _input() -> torch.Tensor:
    return torch.randn(2, 12, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _matrices(module: MultiHeadSelfAttention) -> list[tuple[torch.Tensor, torch.Tensor]]:
    projects = (module.query_project, module.key_project, module.value_project, module.out_project)
    return [(project.weight.flatten(1), project.bias) for project in projects]


@pytest.mark.parametrize("heads", [1, 3, 12])
def test_equals_the_equation(heads, device):
    module, x = _make(heads).to(device), _input().to(device)
    expected = reference.multi_head_self_attention(x.flatten(2), *_matrices(module), heads)
    torch.testing.assert_close(module(x), expected.view_as(x), rtol=1e-10, atol=1e-12)


def test_equals_torchs_multi_head_attention_and_its_map(device):
    module, x = _make().to(device), _input().to(device)
    theirs = nn.MultiheadAttention(12, 4, batch_first=True).double().to(device)
    query, key, value, out = _matrices(module)
    theirs.in_proj_weight.data.copy_(torch.cat([query[0], key[0], value[0]]))
    theirs.in_proj_bias.data.copy_(torch.cat([query[1], key[1], value[1]]))
    theirs.out_proj.weight.data.copy_(out[0])
    theirs.out_proj.bias.data.copy_(out[1])
    sequence = x.flatten(2).transpose(1, 2)
    expected, weight = theirs(sequence, sequence, sequence)  # the weights are the mean over the heads
    torch.testing.assert_close(module(x) - x, expected.transpose(1, 2).view_as(x), rtol=1e-10, atol=1e-12)
    rows = module.attention_map(x, [(0, 0), (4, 6), (2, 5)])
    torch.testing.assert_close(rows.flatten(2), weight[:, [0, 34, 19]], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 3])
def test_views_are_each_heads_map_and_their_mean(heads, device):
    module, x = _make(heads).to(device), _input().to(device)
    query, key = (
        torch.einsum("dc,bcn->bdn", weight, x.flatten(2)) + bias[:, None]
        for weight, bias in _matrices(module)[:2]
    )
    maps = [
        reference.non_local_map(q, k, "embedded_gaussian", (12 // heads) ** -0.5)
        for q, k in zip(query.chunk(heads, dim=1), key.chunk(heads, dim=1), strict=True)
    ]
    expected = {"": sum(maps) / heads}
    if heads > 1:
        expected |= {f"head {number}": one for number, one in enumerate(maps, start=1)}
    views = {view.name: view for view in module.attention_views()}
    assert list(views) == list(expected)
    for name, view in views.items():
        assert (view.kind, view.values) == ("position", "shares")
        begun = view.begin(x)
        for row, column in [(0, 0), (4, 6), (2, 5)]:
            rows = begun([(row, column)]).flatten(2)
            torch.testing.assert_close(rows, expected[name][:, [row * 7 + column]], rtol=1e-10, atol=1e-12)
    assert torch.equal(module.without_attention(x, module(x)), x)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="divisible by heads = 5, got 12"):
        MultiHeadSelfAttention(12, 5)
    with pytest.raises(ValueError, match="heads.*0"):
        MultiHeadSelfAttention(12, 0)
    with pytest.raises(ValueError, match="row 5"):
        _make().attention_map(_input(), [(5, 0)])
