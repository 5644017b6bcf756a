"""EfficientChannelAttention against ECA-Net's equations in float64."""

import pytest
import torch

from danseg.attention import EfficientChannelAttention
from danseg.ops import reference
from shown_view import shown

PARAMETER_NAMES = {"EfficientChannelAttention": ["conv.weight"]}
NEUTRAL = {"EfficientChannelAttention": ["conv.weight"]}
VARIANTS = {"EfficientChannelAttention": [dict(kernel_size=9)]}


@pytest.mark.parametrize("in_channels", [1, 12, 64])
def test_equals_the_equation(in_channels, device):
    torch.manual_seed(0)
    module = EfficientChannelAttention(in_channels).to(device).double()
    x = torch.randn(2, in_channels, 5, 7, dtype=torch.float64).to(device)
    expected = reference.efficient_channel_attention(x.flatten(2), module.conv.weight.flatten())
    torch.testing.assert_close(module(x), expected.view_as(x), rtol=1e-10, atol=1e-12)
    gate = (expected.view_as(x) / x).mean(dim=(2, 3))  # the same at all positions
    torch.testing.assert_close(shown(module, x), gate[:, None], rtol=1e-9, atol=1e-12)
    without = x * gate.mean(dim=1)[:, None, None, None]
    torch.testing.assert_close(module.without_attention(x, expected), without, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("in_channels", "kernel_size"), [(1, 1), (2, 1), (8, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)]
)
def test_kernel_grows_with_the_channels_and_is_odd(in_channels, kernel_size):
    assert EfficientChannelAttention(in_channels).conv.kernel_size == (kernel_size,)


@pytest.mark.parametrize("kernel_size", [1, 3, 9])
def test_a_kernel_size_takes_the_formulas_place(kernel_size, device):
    # The authors' ECA-Net50 has 3 at 256 channels, where the formula gives 5.
    module = EfficientChannelAttention(12, kernel_size=kernel_size).to(device).double()
    assert module.conv.kernel_size == (kernel_size,)
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    expected = reference.efficient_channel_attention(x.flatten(2), module.conv.weight.flatten())
    torch.testing.assert_close(module(x), expected.view_as(x), rtol=1e-10, atol=1e-12)


def test_gamma_and_b_set_the_kernel():
    assert EfficientChannelAttention(512, gamma=1, b=2).conv.kernel_size == (11,)


def test_a_channel_sees_its_neighbours_alone(device):
    torch.manual_seed(0)
    module, x = EfficientChannelAttention(16).to(device), torch.randn(1, 16, 5, 7).to(device)  # a kernel of 3
    changed = x.clone()
    changed[:, 8, 0, 0] += 5
    moved = (module(changed) - module(x))[0, :, 4, 6].abs() > 1e-5
    assert moved.nonzero().flatten().tolist() == [7, 8, 9]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="gamma.*above 0.*got 0"):
        EfficientChannelAttention(8, gamma=0)
    with pytest.raises(ValueError, match="kernel_size must be odd .*got 4"):
        EfficientChannelAttention(8, kernel_size=4)
    with pytest.raises(ValueError, match="leave out one .*b=3 and kernel_size=5"):
        EfficientChannelAttention(8, b=3, kernel_size=5)
