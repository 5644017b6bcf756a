"""SelectiveKernel against SKNet's equations in float64."""

import pytest
import torch
from torch import nn

from danseg.attention import SelectiveKernel
from danseg.ops import reference
from shown_view import shown

PARAMETER_NAMES = {
    "SelectiveKernel": [
        "paths.0.conv.weight",
        "paths.0.bn.weight",
        "paths.0.bn.bias",
        "paths.1.conv.weight",
        "paths.1.bn.weight",
        "paths.1.bn.bias",
        "attn.fc_reduce.weight",
        "attn.bn.weight",
        "attn.bn.bias",
        "attn.fc_select.weight",
    ]
}
NEUTRAL = {"SelectiveKernel": ["attn.fc_select.weight"]}


def _module(in_channels: int = 12, **arguments) -> SelectiveKernel:
    torch.manual_seed(0)
    module = SelectiveKernel(in_channels, **arguments).double().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean):
                nn.init.normal_(tensor, 0.3, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module


def _norm(layer: nn.BatchNorm2d) -> tuple[torch.Tensor, ...]:
    return layer.weight, layer.bias, layer.running_mean, layer.running_var


@pytest.mark.parametrize(("branches", "groups"), [(2, 4), (3, 1)])
def test_equals_the_equations(branches, groups, device):
    module = _module(branches=branches, groups=groups, reduction=2, min_channels=2).to(device)
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    weights = (
        [(path.conv.weight, _norm(path.bn)) for path in module.paths],
        groups,
        module.attn.fc_reduce.weight.flatten(1),
        _norm(module.attn.bn),
        module.attn.fc_select.weight.flatten(1).unflatten(0, (branches, 12)),
    )
    out = module(x)
    torch.testing.assert_close(out, reference.selective_kernel(x, *weights), rtol=1e-10, atol=1e-12)
    share, u = reference.selective_kernel_branches(x, *weights)
    torch.testing.assert_close(shown(module, x), share, rtol=1e-10, atol=1e-12)
    where = reference.branch_shares(share[..., None, None] * u)
    torch.testing.assert_close(shown(module, x, "where"), where, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(module.without_attention(x, out), u.mean(dim=1), rtol=1e-10, atol=1e-12)
    names = [f"3x3, dilation {i}" for i in range(2, branches + 1)]
    assert [view.parts for view in module.attention_views()] == [("3x3", *names)] * 2


def test_a_branch_can_win(device):
    module, x = _module().to(device), torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    module.attn.bn.bias.data.fill_(5)
    select = module.attn.fc_select.weight.data.zero_()
    select[12:] = 10
    torch.testing.assert_close(module(x), module.paths[1](x))
    select[:12] = 20
    torch.testing.assert_close(module(x), module.paths[0](x))


def test_branches_reach_further_with_their_number_and_the_dilation(device):
    module = _module(groups=1, dilation=2).to(device).requires_grad_(False)
    x = torch.zeros(1, 12, 11, 11, dtype=torch.float64).to(device)
    x[:, :, 5, 5] = 1
    for path, reach in zip(module.paths, (2, 4), strict=True):
        seen = path.conv(x)[0].abs().sum(dim=(0, 1)).gt(1e-9).nonzero().flatten()  # columns
        assert seen.tolist() == [5 - reach, 5, 5 + reach]


@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
def test_stride_rounds_up(size, device):
    out = _module(stride=2).to(device)(torch.randn(1, 12, *size, dtype=torch.float64).to(device))
    assert out.shape[2:] == (-(-size[0] // 2), -(-size[1] // 2))


def test_views_of_a_stride_lie_on_the_outputs_grid(device):
    module = _module(stride=2).to(device)
    x = torch.randn(2, 12, 9, 13, dtype=torch.float64).to(device)
    first, second = (path(x) for path in module.paths)
    w = shown(module, x)[..., None, None]
    where = reference.branch_shares(torch.stack([w[:, 0] * first, w[:, 1] * second], dim=1))
    assert where.shape[2:] == (5, 7)
    torch.testing.assert_close(shown(module, x, "where"), where)
    torch.testing.assert_close(module.without_attention(x, module(x)), (first + second) / 2)


def test_where_no_branch_gives_anything_all_win_alike(device):
    module, x = _module().to(device), torch.randn(1, 12, 5, 7, dtype=torch.float64).to(device)
    for path in module.paths:
        path.bn.bias.data.fill_(-1e3)  # below the ReLU
    assert torch.equal(shown(module, x, "where"), torch.full((1, 2, 5, 7), 0.5, dtype=x.dtype, device=device))


def test_sizes_follow_the_paper_and_give_way():
    assert SelectiveKernel(1024).attn.fc_reduce.out_channels == 64
    assert SelectiveKernel(128).attn.fc_reduce.out_channels == 32
    assert SelectiveKernel(128).paths[1].conv.groups == 32
    assert SelectiveKernel(12).paths[0].conv.groups == 4


def test_norms_are_those_asked_for():
    module = SelectiveKernel(8, norm_layer=lambda channels: nn.GroupNorm(2, channels))
    assert len([m for m in module.modules() if isinstance(m, nn.GroupNorm)]) == 3
    assert not [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="branches must be at least 2.*got 1"):
        SelectiveKernel(8, branches=1)
    with pytest.raises(ValueError, match="reduction.*at least 1.*-3"):
        SelectiveKernel(8, reduction=-3)


def test_a_synchronised_norm_without_other_processes_needs_two_images_too():
    module = SelectiveKernel(8, norm_layer=torch.nn.SyncBatchNorm)
    with pytest.raises(ValueError, match="SyncBatchNorm.*at least 2 images, got 1"):
        module(torch.randn(1, 8, 5, 7))
