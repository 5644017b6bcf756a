"""SplitAttention against ResNeSt's equations in float64, and against mmseg's module."""

import pytest
import torch
from torch import nn

from danseg.attention import SplitAttention
from danseg.ops import reference
from shown_view import shown

PARAMETER_NAMES = {
    "SplitAttention": [
        "conv.weight",
        "bn0.weight",
        "bn0.bias",
        "fc1.weight",
        "fc1.bias",
        "bn1.weight",
        "bn1.bias",
        "fc2.weight",
        "fc2.bias",
    ]
}
NEUTRAL = {"SplitAttention": ["fc2.weight", "fc2.bias"]}
ZERO_GRADIENT = {"SplitAttention": ["fc1.bias"]}  # the batch norm after it cancels it


VARIANTS = {"SplitAttention": [dict(always_pool=True)]}


def _draw(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean):
                nn.init.normal_(tensor, 0.3, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.double().eval()


def _module(in_channels: int = 12, **arguments) -> SplitAttention:
    torch.manual_seed(0)
    return _draw(SplitAttention(in_channels, **arguments))


def _norm(layer: nn.BatchNorm2d) -> tuple[torch.Tensor, ...]:
    return layer.weight, layer.bias, layer.running_mean, layer.running_var


@pytest.mark.parametrize(("radix", "groups"), [(2, 1), (1, 1), (2, 3), (3, 2), (1, 2)])
def test_equals_the_equations(radix, groups, device):
    module = _module(radix=radix, groups=groups, min_channels=6).to(device)
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    weights = (
        module.conv.weight,
        _norm(module.bn0),
        module.fc1.weight.flatten(1),
        module.fc1.bias,
        _norm(module.bn1),
        module.fc2.weight.flatten(1),
        module.fc2.bias,
        radix,
        groups,
    )
    out = module(x)
    torch.testing.assert_close(out, reference.split_attention(x, *weights), rtol=1e-10, atol=1e-12)
    share, u = reference.split_attention_branches(x, *weights)
    torch.testing.assert_close(shown(module, x), share, rtol=1e-10, atol=1e-12)
    views = {view.name: view for view in module.attention_views()}
    if radix == 1:
        assert list(views) == [""] and views[""].values == "gate"
        without = u[:, 0] * share.mean(dim=(1, 2))[:, None, None, None]
    else:
        assert views[""].parts == views["where"].parts == ("split 1", "split 2", "split 3")[:radix]
        where = reference.branch_shares(share[..., None, None] * u)
        torch.testing.assert_close(shown(module, x, "where"), where, rtol=1e-10, atol=1e-12)
        without = u.mean(dim=1)
    torch.testing.assert_close(module.without_attention(x, out), without, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("radix", "groups", "dilation"), [(2, 1, 1), (1, 1, 1), (2, 2, 2), (4, 2, 1)])
def test_mmsegs_weights_load_and_outputs_are_equal(radix, groups, dilation, device):
    from mmseg.models.backbones.resnest import SplitAttentionConv2d

    theirs = _draw(
        SplitAttentionConv2d(16, 16, 3, padding=dilation, dilation=dilation, groups=groups, radix=radix)
    )
    ours = SplitAttention(16, radix=radix, groups=groups, dilation=dilation).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 16, 5, 7, dtype=torch.float64)
    ours, theirs, x = (one.to(device) for one in (ours, theirs, x))
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-12)


def test_a_split_can_win(device):
    module, x = _module().to(device), torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    first, second = module.bn0(module.conv(x)).relu().chunk(2, dim=1)
    module.fc2.weight.data.zero_()
    module.fc2.bias.data[:12], module.fc2.bias.data[12:] = 50, -50
    torch.testing.assert_close(module(x), first)
    module.fc2.bias.data.neg_()
    torch.testing.assert_close(module(x), second)


@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
def test_a_stride_averages_behind_the_attention_and_rounds_up(size, device):
    module, x = _module(stride=2).to(device), torch.randn(1, 12, *size, dtype=torch.float64).to(device)
    out = module(x)
    assert out.shape[2:] == (-(-size[0] // 2), -(-size[1] // 2))
    module.stride = 1
    torch.testing.assert_close(out[:, :, 1, 1], module(x)[:, :, 1:4, 1:4].mean(dim=(2, 3)))
    plain = module.without_attention(x, out)
    module.stride = 2
    without = module.without_attention(x, out)
    assert without.shape == out.shape
    torch.testing.assert_close(without[:, :, 1, 1], plain[:, :, 1:4, 1:4].mean(dim=(2, 3)))


def test_the_pooling_can_stay_without_a_stride(device):
    module, x = _module().to(device), torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    ninth = torch.full((12, 1, 3, 3), 1 / 9, dtype=torch.float64).to(device)
    expected = reference.convolution(module(x), ninth, groups=12)
    module.always_pool = True
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)


def test_norms_are_those_asked_for():
    module = SplitAttention(8, norm_layer=lambda channels: nn.GroupNorm(2, channels))
    assert len([m for m in module.modules() if isinstance(m, nn.GroupNorm)]) == 2
    assert not [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def test_sizes_follow_the_authors_and_give_way():
    assert SplitAttention(256).fc1.out_channels == 128
    assert SplitAttention(16).fc1.out_channels == 32
    assert SplitAttention(12, groups=3).fc1.out_channels == 33


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="divisible by radix . groups = 6, got 8"):
        SplitAttention(8, radix=2, groups=3)
    with pytest.raises(ValueError, match="radix.*at least 1.*0"):
        SplitAttention(8, radix=0)
