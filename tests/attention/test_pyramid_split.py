"""PyramidSplitAttention against EPSANet's equations in float64."""

import pytest
import torch

from danseg.attention import PyramidSplitAttention
from danseg.ops import reference
from shown_view import shown

PARAMETER_NAMES = {
    "PyramidSplitAttention": [
        "conv_1.weight",
        "conv_2.weight",
        "conv_3.weight",
        "conv_4.weight",
        "se.fc1.weight",
        "se.fc1.bias",
        "se.fc2.weight",
        "se.fc2.bias",
    ]
}
NEUTRAL = {"PyramidSplitAttention": ["se.fc2.weight", "se.fc2.bias"]}


def _module(in_channels: int = 16, **arguments) -> PyramidSplitAttention:
    torch.manual_seed(0)
    return PyramidSplitAttention(in_channels, **arguments).double()


def test_equals_the_equations(device):
    module = _module(groups=(1, 2, 4, 4), reduction=2).to(device)
    x = torch.randn(2, 16, 5, 7, dtype=torch.float64).to(device)
    kernels = [module.conv_1.weight, module.conv_2.weight, module.conv_3.weight, module.conv_4.weight]
    assert [kernel.shape[-1] for kernel in kernels] == [3, 5, 7, 9]
    fc1, fc2 = module.se.fc1, module.se.fc2
    expected = reference.pyramid_split_attention(
        x, kernels, [1, 2, 4, 4], fc1.weight.flatten(1), fc1.bias, fc2.weight.flatten(1), fc2.bias
    )
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)
    features = [
        reference.convolution(x, kernel, groups=group)
        for kernel, group in zip(kernels, (1, 2, 4, 4), strict=True)
    ]
    weighed = torch.stack(expected.chunk(4, dim=1)[::-1], dim=1)  # (B, S, C / S, H, W)
    weights = (weighed / torch.stack(features, dim=1))[..., 0, 0]
    torch.testing.assert_close(shown(module, x), weights, rtol=1e-8, atol=1e-10)
    where = reference.branch_shares(weighed)
    torch.testing.assert_close(shown(module, x, "where"), where, rtol=1e-10, atol=1e-12)
    without = torch.cat(features[::-1], dim=1) / 4
    torch.testing.assert_close(module.without_attention(x, expected), without, rtol=1e-10, atol=1e-12)
    assert [view.parts for view in module.attention_views()] == [("3x3", "5x5", "7x7", "9x9")] * 2


def test_weights_come_from_the_squeeze_and_excitation(device):
    module, x = _module().to(device), torch.randn(2, 16, 5, 7, dtype=torch.float64).to(device)
    module.se.fc2.weight.data.zero_()  # the same score everywhere: a quarter each
    quarter = torch.cat([module.conv_4(x), module.conv_3(x), module.conv_2(x), module.conv_1(x)], 1) / 4
    torch.testing.assert_close(module(x), quarter)
    module.se.fc2.weight.data.fill_(3)
    assert not torch.allclose(module(x), quarter, rtol=1e-2)


def test_groups_and_squeeze_give_way_in_narrow_maps():
    module = _module(24)
    groups = [conv.groups for conv in (module.conv_1, module.conv_2, module.conv_3, module.conv_4)]
    assert groups == [1, 2, 2, 2]  # of 6 channels a branch
    assert PyramidSplitAttention(64).conv_4.groups == 16
    assert PyramidSplitAttention(4).se.fc1.out_channels == 1


def test_dilation_widens_and_stride_rounds_up(device):
    x = torch.zeros(1, 16, 21, 21, dtype=torch.float64).to(device)
    x[:, :, 10, 10] = 1
    seen = _module(dilation=2).to(device).conv_2(x)[0].abs().sum(dim=(0, 1)).gt(1e-9).nonzero().flatten()
    assert seen.tolist() == [6, 8, 10, 12, 14]
    for size in ((8, 12), (9, 13)):
        out = _module(stride=2, dilation=2).to(device)(
            torch.randn(1, 16, *size, dtype=torch.float64).to(device)
        )
        assert out.shape == (1, 16, -(-size[0] // 2), -(-size[1] // 2))


@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
def test_views_of_a_stride_lie_on_the_outputs_grid(size, device):
    module = _module(stride=2, dilation=2).to(device)
    x = torch.randn(2, 16, *size, dtype=torch.float64).to(device)
    out = module(x)
    weighed = torch.stack(out.chunk(4, dim=1)[::-1], dim=1)
    torch.testing.assert_close(shown(module, x, "where"), reference.branch_shares(weighed))
    features = torch.cat([module.conv_4(x), module.conv_3(x), module.conv_2(x), module.conv_1(x)], 1)
    torch.testing.assert_close(module.without_attention(x, out), features / 4)
    assert module.attention_views()[0].parts[:2] == ("3x3, dilation 2", "5x5, dilation 2")


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="divisible by the number of branches, 4, got 10"):
        PyramidSplitAttention(10)
    with pytest.raises(ValueError, match=r"odd, got \(3, 4\)"):
        PyramidSplitAttention(8, kernel_sizes=(3, 4), groups=(1, 1))
    with pytest.raises(ValueError, match="one entry per branch"):
        PyramidSplitAttention(8, kernel_sizes=(3, 5, 7))
    with pytest.raises(ValueError, match="reduction must be at least 1, got 0"):
        PyramidSplitAttention(8, reduction=0)
    with pytest.raises(ValueError, match="groups must be at least 1.*0"):
        PyramidSplitAttention(8, groups=(1, 4, 0, 16))
