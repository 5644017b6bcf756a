"""ChannelAttention against DANet's equations in float64."""

import pytest
import torch
from torch import nn

from danseg.attention import ChannelAttention
from danseg.ops import reference
from shown_view import shown

PARAMETER_NAMES = {"ChannelAttention": ["gamma.scale"]}


def test_equals_the_equation(device):
    module, x = (
        ChannelAttention(6).to(device).double(),
        torch.randn(2, 6, 3, 4, dtype=torch.float64).to(device),
    )
    nn.init.constant_(module.gamma.scale, 0.7)
    expected = reference.channel_attention(x.flatten(2), module.gamma.scale)
    torch.testing.assert_close(module(x), expected.view_as(x), rtol=1e-10, atol=1e-12)


def test_map_is_that_of_the_equation_and_favours_unlike_channels(device):
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64).to(device)
    weight = ChannelAttention(6).to(device).attention_map(x)
    torch.testing.assert_close(weight, reference.channel_attention_map(x.flatten(2)), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(shown(ChannelAttention(6).to(device), x), weight, rtol=0, atol=0)
    energy = torch.einsum("bchw,bdhw->bcd", x, x)
    assert torch.equal(weight.argmax(-1), energy.argmin(-1))


def test_wrong_channel_count_is_named():
    with pytest.raises(ValueError, match=r"6 channels.*\(1, 5, 3, 4\)"):
        ChannelAttention(6)(torch.randn(1, 5, 3, 4))
