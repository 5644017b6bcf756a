"""CrissCrossAttention against CCNet's equations in float64, one recurrence and several."""

import functools

import pytest
import torch
from torch import nn

from danseg.attention import CrissCrossAttention
from danseg.ops import reference

PARAMETER_NAMES = {
    "CrissCrossAttention": [
        "query_conv.weight",
        "query_conv.bias",
        "key_conv.weight",
        "key_conv.bias",
        "value_conv.weight",
        "value_conv.bias",
        "gamma.scale",
    ]
}
# It adds one number to all energies of a position, which the softmax cancels.
ZERO_GRADIENT = {"CrissCrossAttention": ["key_conv.bias"]}


def _make(recurrence: int) -> CrissCrossAttention:
    torch.manual_seed(0)
    module = CrissCrossAttention(12, recurrence, 3).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.3)
    nn.init.constant_(module.gamma.scale, 0.7)
    return module


def _input() -> torch.Tensor:
    return torch.randn(2, 12, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _project(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("dc,bchw->bdhw", conv.weight.flatten(1), x) + conv.bias[:, None, None]


def _expected(module: CrissCrossAttention, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The output, and the recurrences' maps (B, N, N)."""
    maps = []
    for _ in range(module.recurrence):
        query, key, value = (_project(c, x) for c in (module.query_conv, module.key_conv, module.value_conv))
        maps.append(reference.criss_cross_map(query, key))
        x = x + 0.7 * reference.criss_cross_attention(query, key, value)
    return x, maps


def _product(maps: list[torch.Tensor]) -> torch.Tensor:
    """What comes last stands first: it gathers what the others have gathered."""
    return functools.reduce(lambda earlier, later: later @ earlier, maps)


@pytest.mark.parametrize("recurrence", [1, 2, 3])
def test_equals_the_equation(recurrence, device):
    module, x = _make(recurrence).to(device), _input().to(device)
    torch.testing.assert_close(module(x), _expected(module, x)[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("recurrence", [1, 2, 3])
def test_map_is_the_row_of_the_product_of_the_maps(recurrence, device):
    module, x = _make(recurrence).to(device), _input().to(device)
    rows = module.attention_map(x, [(0, 0), (3, 5), (2, 1)])
    expected = _product(_expected(module, x)[1])[:, [0, 23, 13]]
    torch.testing.assert_close(rows.flatten(2), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(rows.sum(dim=(2, 3)), torch.ones(2, 3, dtype=torch.float64).to(device))
    on_the_cross = torch.zeros(4, 6, dtype=torch.bool).to(device)
    on_the_cross[2], on_the_cross[:, 1] = True, True
    assert torch.equal(rows[0, 2] > 0, on_the_cross) == (recurrence == 1)


@pytest.mark.parametrize("recurrence", [1, 2, 3])
def test_views_are_all_recurrences_together_and_each_ones_own_map(recurrence, device):
    module, x = _make(recurrence).to(device), _input().to(device)
    maps = _expected(module, x)[1]
    expected = {"": _product(maps)}
    if recurrence > 1:
        expected |= {f"recurrence {number}": one for number, one in enumerate(maps, start=1)}
    views = {view.name: view for view in module.attention_views()}
    assert list(views) == list(expected)
    for name, view in views.items():
        assert (view.kind, view.values) == ("position", "shares")
        begun = view.begin(x)
        module.query_conv.weight.data.mul_(-1)  # what has begun looks at the weights of then
        for row, column in [(3, 5), (2, 1)]:
            rows = begun([(row, column)]).flatten(2)
            torch.testing.assert_close(rows, expected[name][:, [row * 6 + column]], rtol=1e-10, atol=1e-12)
        module.query_conv.weight.data.mul_(-1)


def test_without_attention_it_gives_its_input():
    module, x = _make(2), _input()
    assert not torch.allclose(module(x), x)
    assert torch.equal(module.without_attention(x, module(x)), x)


def test_starts_as_the_identity():
    x = _input().float()
    assert torch.equal(CrissCrossAttention(12)(x), x)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="recurrence.*0"):
        CrissCrossAttention(12, 0)
    with pytest.raises(ValueError, match="row 4"):
        _make(1).attention_map(_input(), [(4, 0)])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_keeps_the_memory_format(memory_format, device):
    x = _input().to(device).contiguous(memory_format=memory_format)
    assert _make(2).to(device)(x).is_contiguous(memory_format=memory_format)


def test_map_passes_gradients_on(device):
    module, x = _make(2).to(device), _input().to(device).requires_grad_()
    module.attention_map(x, [(2, 1)])[0, 0, 0, 0].backward()
    assert x.grad.abs().sum() > 0
