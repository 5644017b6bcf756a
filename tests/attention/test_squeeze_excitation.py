"""SqueezeExcitation against SENet's equations in float64."""

import pytest
import torch

from danseg.attention import SqueezeExcitation
from danseg.ops import reference
from shown_view import shown

PARAMETER_NAMES = {"SqueezeExcitation": ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]}
NEUTRAL = {"SqueezeExcitation": ["fc2.weight", "fc2.bias"]}


def test_equals_the_equation(device):
    torch.manual_seed(0)
    module, x = (
        SqueezeExcitation(12, 3).to(device).double(),
        torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device),
    )
    weights = [t for fc in (module.fc1, module.fc2) for t in (fc.weight.flatten(1), fc.bias)]
    expected = reference.squeeze_excitation(x.flatten(2), *weights)
    torch.testing.assert_close(module(x), expected.view_as(x), rtol=1e-10, atol=1e-12)
    gate = (expected.view_as(x) / x).mean(dim=(2, 3))  # the same at all positions
    torch.testing.assert_close(shown(module, x), gate[:, None], rtol=1e-9, atol=1e-12)
    without = x * gate.mean(dim=1)[:, None, None, None]
    torch.testing.assert_close(module.without_attention(x, expected), without, rtol=1e-9, atol=1e-12)


def test_a_position_far_away_counts(device):
    torch.manual_seed(0)
    module, x = SqueezeExcitation(12, 3).to(device), torch.randn(1, 12, 5, 7).to(device)
    changed = x.clone()
    changed[..., 0, 0] += 5
    assert not torch.allclose(module(changed)[..., 4, 6], module(x)[..., 4, 6], atol=1e-4)


def test_hidden_channels_never_vanish():
    assert SqueezeExcitation(512).fc1.out_channels == 32
    assert SqueezeExcitation(8).fc1.out_channels == 1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="reduction.*at least 1.*-2"):
        SqueezeExcitation(8, -2)
