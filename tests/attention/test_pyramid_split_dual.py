"""PyramidSplitDualAttention against EPSANet's and DANet's equations, composed, in float64."""

import pytest
import torch
from torch import nn

from danseg.attention import PyramidSplitDualAttention
from danseg.ops import reference
from danseg.visualization import attention_modules
from danseg.visualization.attention_recording import record_attention
from shown_view import shown

PARAMETER_NAMES = {
    "PyramidSplitDualAttention": [
        "conv_1.weight",
        "conv_2.weight",
        "conv_3.weight",
        "conv_4.weight",
        "dual.pam.key_project.weight",
        "dual.pam.key_project.bias",
        "dual.pam.query_project.weight",
        "dual.pam.query_project.bias",
        "dual.pam.value_project.weight",
        "dual.pam.value_project.bias",
        "dual.pam.gamma.scale",
        "dual.cam.gamma.scale",
    ]
}
ZERO_GRADIENT = {"PyramidSplitDualAttention": ["dual.pam.key_project.bias"]}  # the softmax cancels it
NEUTRAL = {"PyramidSplitDualAttention": None}  # without their scales the branches still differ in their means


def _module(**arguments) -> PyramidSplitDualAttention:
    torch.manual_seed(0)
    module = PyramidSplitDualAttention(16, **arguments).double()
    nn.init.constant_(module.dual.pam.gamma.scale, 0.7)
    nn.init.constant_(module.dual.cam.gamma.scale, 0.3)
    return module


def test_equals_the_equations(device):
    module = _module(groups=(1, 2, 4, 4), query_channels=3).to(device)
    x = torch.randn(2, 16, 5, 7, dtype=torch.float64).to(device)
    kernels = [module.conv_1.weight, module.conv_2.weight, module.conv_3.weight, module.conv_4.weight]
    pam, cam = module.dual.pam, module.dual.cam
    projections = (pam.query_project, pam.key_project, pam.value_project)
    weights = [t for p in projections for t in (p.weight.flatten(1), p.bias)]
    expected = reference.pyramid_split_dual_attention(
        x, kernels, [1, 2, 4, 4], weights, pam.gamma.scale, cam.gamma.scale
    )
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)
    features = [
        reference.convolution(x, kernel, groups=group)
        for kernel, group in zip(kernels, (1, 2, 4, 4), strict=True)
    ]
    weighed = torch.stack(expected.chunk(4, dim=1)[::-1], dim=1)  # (B, S, C / S, H, W)
    share = (weighed / torch.stack(features, dim=1))[..., 0, 0]
    torch.testing.assert_close(shown(module, x), share, rtol=1e-8, atol=1e-10)
    where = reference.branch_shares(weighed)
    torch.testing.assert_close(shown(module, x, "where"), where, rtol=1e-10, atol=1e-12)
    without = torch.cat(features[::-1], dim=1) / 4
    torch.testing.assert_close(module.without_attention(x, expected), without, rtol=1e-10, atol=1e-12)
    for feature, name in zip(features, ("3x3", "5x5", "7x7", "9x9"), strict=True):
        flat = feature.flatten(2)
        rows = reference.position_attention_map(flat, *weights[:4])[:, [4, 20]].unflatten(2, (5, 7))
        found = shown(module, x, f"position {name}", [(0, 4), (2, 6)])
        torch.testing.assert_close(found, rows, rtol=1e-10, atol=1e-12)
        of_channels = reference.channel_attention_map(flat)
        torch.testing.assert_close(shown(module, x, f"channels {name}"), of_channels, rtol=1e-10, atol=1e-12)


def test_what_runs_once_a_branch_is_shown_by_branch_and_not_as_it_ran_last(device):
    module, x = _module().to(device), torch.randn(1, 16, 5, 7, dtype=torch.float64).to(device)
    assert list(attention_modules(module)) == [""]
    with record_attention(module) as recorded, torch.no_grad():
        module(x)
    assert list(recorded) == [""]
    [first, *_, last] = [recorded[""].show([(2, 3)], f"position {name}") for name in ("3x3", "5x5", "9x9")]
    features = module.conv_1(x)
    torch.testing.assert_close(first, module.dual.pam.attention_map(features, [(2, 3)]))
    assert not torch.allclose(first, last, atol=1e-3)


@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
def test_with_a_stride_a_position_is_that_of_the_coarser_cell(size, device):
    module = _module(stride=2).to(device)
    x = torch.randn(1, 16, *size, dtype=torch.float64).to(device)
    far = (size[0] - 1, size[1] - 1)
    cells = [(0, 0), (1, 1), (-(-size[0] // 2) - 1, -(-size[1] // 2) - 1)]
    found = shown(module, x, "position 5x5", [(1, 1), (2, 3), far])
    torch.testing.assert_close(found, module.dual.pam.attention_map(module.conv_2(x), cells))


@pytest.mark.parametrize("part", ["pam", "cam"])
def test_both_attentions_move_the_weights(part, device):
    module, x = _module().to(device), torch.randn(2, 16, 5, 7, dtype=torch.float64).to(device)
    with_both = module(x)
    getattr(module.dual, part).gamma.scale.data.zero_()
    assert not torch.allclose(module(x), with_both, rtol=1e-3)


@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
def test_stride_rounds_up(size, device):
    out = _module(stride=2, dilation=2).to(device)(torch.randn(1, 16, *size, dtype=torch.float64).to(device))
    assert out.shape == (1, 16, -(-size[0] // 2), -(-size[1] // 2))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="divisible by the number of branches, 4, got 10"):
        PyramidSplitDualAttention(10)
    with pytest.raises(ValueError, match="query_channels.*-1"):
        PyramidSplitDualAttention(16, query_channels=-1)
