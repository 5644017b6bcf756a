"""InterlacedSparseAttention against the paper's groups, attended to one by one, in float64."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from danseg.attention import InterlacedSparseAttention
from danseg.ops import reference
from danseg.visualization.attention_switch import switched_off

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


def _relation_map(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The softmax map (B, n, n) of one group's positions (B, C, n)."""
    query, key = (
        _layer(project[1].conv, _layer(project[0].conv, x).clamp(min=0)).clamp(min=0)
        for project in (block.query_project, block.key_project)
    )
    return reference.non_local_map(query, key, "embedded_gaussian", query.shape[1] ** -0.5)


SIZES = pytest.mark.parametrize(
    ("size", "factor"), [((6, 8), (2, 4)), ((5, 7), (2, 4)), ((5, 7), (8, 8)), ((3, 7), (2, 3))]
)


@SIZES
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


@SIZES
def test_views_are_both_stages_maps_and_their_product(size, factor, device):
    module = _make(down_factor=factor).to(device)
    x = torch.randn(2, 6, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
    height, width = (-(-side // step) * step for side, step in zip(size, factor, strict=True))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    y = F.pad(x, (left, width - size[1] - left, top, height - size[0] - top))
    seen = torch.zeros(height, width, dtype=torch.bool, device=device)
    seen[top : top + size[0], left : left + size[1]] = True
    seen = seen.flatten().nonzero()[:, 0]  # positions that are no padding
    maps = []
    groups = reference.interlaced_groups(height, width, factor)
    for block, of_kind in zip((module.global_relation, module.local_relation), groups, strict=True):
        out, whole = torch.empty_like(y).flatten(2), x.new_zeros(2, height * width, height * width)
        for group in of_kind:
            index = torch.tensor([row * width + column for row, column in group]).to(device)
            out[:, :, index] = _relation(block, y.flatten(2)[:, :, index])
            whole[:, index[:, None], index] = _relation_map(block, y.flatten(2)[:, :, index])
        y = out.unflatten(2, (height, width))
        maps.append(whole)
    far, near = maps
    expected = {"": near @ far, "far": far, "near": near}
    views = {view.name: view for view in module.attention_views()}
    assert list(views) == list(expected)
    for name, view in views.items():
        whole = expected[name][:, seen][:, :, seen]
        whole = whole / whole.sum(dim=2, keepdim=True)  # of what is not padding
        assert (view.kind, view.values) == ("position", "shares")
        begun = view.begin(x)
        positions = [(0, 0), (size[0] - 1, size[1] - 1), (2, 5)]
        index = [row * size[1] + column for row, column in positions]
        torch.testing.assert_close(begun(positions).flatten(2), whole[:, index], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(begun([(2, 5)]).flatten(2), whole[:, index[2:]], rtol=1e-10, atol=1e-12)
    assert torch.equal(module.attention_map(x, positions), views[""].begin(x)(positions))


def test_without_attention_it_gives_its_input():
    module, x = _make(down_factor=(2, 4)), torch.randn(2, 6, 5, 7, dtype=torch.float64)
    assert not torch.allclose(module(x), x)
    with switched_off(module, ""):
        assert torch.equal(module(x), x)


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
    with pytest.raises(ValueError, match="row 5, column 0.*rows go from 0 to 4"):
        _make().attention_map(torch.zeros(1, 6, 5, 7, dtype=torch.float64), [(5, 0)])
