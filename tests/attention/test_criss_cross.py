"""CrissCrossAttention against CCNet's equations in float64, one recurrence and several."""

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


def _expected(module: CrissCrossAttention, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and the product of the recurrences' maps (B, N, N)."""
    total = None
    for _ in range(module.recurrence):
        query, key, value = (_project(c, x) for c in (module.query_conv, module.key_conv, module.value_conv))
        weights = reference.criss_cross_map(query, key)
        total = weights if total is None else weights @ total
        x = x + 0.7 * reference.criss_cross_attention(query, key, value)
    return x, total


@pytest.mark.parametrize("recurrence", [1, 2, 3])
def test_equals_the_equation(recurrence, device):
    module, x = _make(recurrence).to(device), _input().to(device)
    torch.testing.assert_close(module(x), _expected(module, x)[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("recurrence", [1, 2, 3])
def test_map_is_the_row_of_the_product_of_the_maps(recurrence, device):
    module, x = _make(recurrence).to(device), _input().to(device)
    rows = module.attention_map(x, [(0, 0), (3, 5), (2, 1)])
    expected = _expected(module, x)[1][:, [0, 23, 13]]
    torch.testing.assert_close(rows.flatten(2), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(rows.sum(dim=(2, 3)), torch.ones(2, 3, dtype=torch.float64).to(device))
    on_the_cross = torch.zeros(4, 6, dtype=torch.bool).to(device)
    on_the_cross[2], on_the_cross[:, 1] = True, True
    assert torch.equal(rows[0, 2] > 0, on_the_cross) == (recurrence == 1)


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
