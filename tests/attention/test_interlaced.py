"""InterlacedSparseAttention against the paper's groups, attended to one by one, in float64."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from danseg.attention import InterlacedSparseAttention
from danseg.ops import reference

_CONV = ["conv.weight", "bn.weight", "bn.bias"]
PARAMETER_NAMES = {
    "InterlacedSparseAttention": [
        f"{relation}.{name}"
        for relation in ("global_relation", "local_relation")
        for name in (
            *(f"{project}_project.{i}.{n}" for project in ("key", "query") for i in (0, 1) for n in _CONV),
            "value_project.weight",
            "value_project.bias",
            *(f"output_project.{n}" for n in _CONV),
        )
    ]
    + ["gamma.scale"]
}
# Weights sum to 1, so a value's bias reaches all positions alike, and batch norm, in training, cancels it.
# The contract's small map is a single block, so a position's only far position is itself.
ZERO_GRADIENT = {
    "InterlacedSparseAttention": [
        name
        for name in PARAMETER_NAMES["InterlacedSparseAttention"]
        if name.endswith("value_project.bias") or re.match("global_relation.(key|query)", name)
    ]
}


def _make(**arguments) -> InterlacedSparseAttention:
    torch.manual_seed(0)
    module = InterlacedSparseAttention(6, 4, norm_layer=None, **arguments).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)
    return module


def _layer(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("dc,bcn->bdn", conv.weight.flatten(1), x) + conv.bias[:, None]


def _relation(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Apply the block to one group's positions (B, C, n)."""
    query, key = (
        _layer(project[1].conv, _layer(project[0].conv, x).clamp(min=0)).clamp(min=0)
        for project in (block.query_project, block.key_project)
    )
    value = _layer(block.value_project, x)
    out = reference.attention(*(t.transpose(1, 2) for t in (query, key, value)), query.shape[1] ** -0.5)
    return _layer(block.output_project.conv, out.transpose(1, 2)).clamp(min=0)


@pytest.mark.parametrize(("size", "factor"), [((6, 8), (2, 4)), ((5, 7), (2, 4)), ((5, 7), (8, 8))])
def test_equals_attention_group_by_group(size, factor, device):
    module = _make(down_factor=factor).to(device)
    x = torch.randn(2, 6, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
    height, width = (-(-side // step) * step for side, step in zip(size, factor, strict=True))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    y = F.pad(x, (left, width - size[1] - left, top, height - size[0] - top))
    groups = reference.interlaced_groups(height, width, factor)
    for block, of_kind in zip((module.global_relation, module.local_relation), groups, strict=True):
        out = torch.empty_like(y)
        for group in of_kind:
            rows, columns = (torch.tensor(axis).to(device) for axis in zip(*group, strict=True))
            out[:, :, rows, columns] = _relation(block, y[:, :, rows, columns])
        y = out
    expected = x + module.gamma.scale * y[:, :, top : top + size[0], left : left + size[1]]
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)


def test_every_parameter_is_trained_where_there_are_several_blocks(device):
    module = InterlacedSparseAttention(6, 4, down_factor=(2, 4)).to(device).double()
    nn.init.constant_(module.gamma.scale, 0.7)
    module(torch.randn(2, 6, 6, 8, dtype=torch.float64).to(device)).square().sum().backward()
    sizes = {name: parameter.grad.abs().max() for name, parameter in module.named_parameters()}
    vanishing = {name for name, size in sizes.items() if size < 1e-9 * max(sizes.values())}
    assert vanishing == {f"{relation}_relation.value_project.bias" for relation in ("global", "local")}


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"down_factor.*\(0, 8\)"):
        InterlacedSparseAttention(6, down_factor=(0, 8))
