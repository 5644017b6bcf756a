"""PositionAttention against DANet's equations in float64."""

import pytest
import torch
from torch import nn

from danseg.attention import PositionAttention
from danseg.ops import reference

PARAMETER_NAMES = {
    "PositionAttention": [
        "key_project.weight",
        "key_project.bias",
        "query_project.weight",
        "query_project.bias",
        "value_project.weight",
        "value_project.bias",
        "gamma.scale",
    ]
}
# It adds one number to a whole row of energies, which the softmax cancels.
ZERO_GRADIENT = {"PositionAttention": ["key_project.bias"]}


def _module() -> PositionAttention:
    torch.manual_seed(0)
    module = PositionAttention(12, 3).double()
    nn.init.constant_(module.gamma.scale, 0.7)
    return module


def _reference_weights(module: PositionAttention) -> list[torch.Tensor]:
    projections = (module.query_project, module.key_project, module.value_project)
    return [t for p in projections for t in (p.weight.flatten(1), p.bias)]


def test_equals_the_equation(device):
    module, x = _module().to(device), torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    expected = reference.position_attention(x.flatten(2), *_reference_weights(module), module.gamma.scale)
    torch.testing.assert_close(module(x), expected.view_as(x), rtol=1e-10, atol=1e-12)


def test_map_rows_are_those_of_the_equation(device):
    module, x = _module().to(device), torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    positions = [(0, 0), (4, 6), (2, 5)]
    rows = module.attention_map(x, positions)
    full = reference.position_attention_map(x.flatten(2), *_reference_weights(module)[:4])  # (B, N, N)
    expected = torch.stack([full[:, row * 7 + column] for row, column in positions], dim=1).view(2, 3, 5, 7)
    torch.testing.assert_close(rows, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(rows.sum(dim=(2, 3)), torch.ones(2, 3, dtype=torch.float64).to(device))


def test_starts_as_the_identity():
    x = torch.randn(1, 12, 5, 7)
    assert torch.equal(PositionAttention(12)(x), x)


def test_query_channels_default_to_an_eighth_but_never_to_none():
    assert PositionAttention(512).query_project.out_channels == 64
    assert PositionAttention(4).query_project.out_channels == 1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="query_channels.*-1"):
        PositionAttention(8, -1)
    module, x = PositionAttention(8), torch.randn(1, 8, 5, 7)
    with pytest.raises(ValueError, match="row 5, column 0.*rows go from 0 to 4"):
        module.attention_map(x, [(5, 0)])
    with pytest.raises(ValueError, match="at least one"):
        module.attention_map(x, [])
