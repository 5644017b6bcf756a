import pytest
import torch
from torch import nn

from danseg.attention import ChannelAttention, DualAttention, PositionAttention
from danseg.attention.parts.views import ShowsAttention
from danseg.visualization.attention_switch import switched_off


def _with_scale(module: nn.Module, scale: float) -> nn.Module:
    for one in module.modules():
        if isinstance(one, (PositionAttention, ChannelAttention)):
            nn.init.constant_(one.gamma.scale, scale)
    return module


@pytest.mark.parametrize("path", ["1.pam", "1.cam"])
def test_inside_the_block_a_branch_adds_nothing_and_all_else_is_as_it_was(path, device):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), DualAttention(8), nn.Conv2d(8, 5, 1)).double().to(device)
    _with_scale(model, -0.7)
    x = torch.randn(2, 3, 8, 9, dtype=torch.float64).to(device)
    with_attention = model(x)
    with switched_off(model, path):
        without = model(x)
    assert torch.equal(model(x), with_attention) and not torch.allclose(without, with_attention)
    nn.init.zeros_(model.get_submodule(path).gamma.scale)
    torch.testing.assert_close(without, model(x))


def test_a_block_can_be_left_by_an_error():
    model = _with_scale(nn.Sequential(PositionAttention(8)), 1.0)
    with pytest.raises(ZeroDivisionError), switched_off(model, "0"):
        raise ZeroDivisionError
    assert not model[0]._forward_hooks


class Between(ShowsAttention, nn.Module):
    """What a head does that is a module of attention itself: a child begins it, another ends it."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.end = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    attention_entry = property(lambda self: self.begin)
    attention_exit = property(lambda self: self.end)

    def forward(self, x):
        return self.end(self.begin(x).exp()) + 1

    def without_attention(self, x, out):
        return x.log()


def test_the_output_of_the_exit_is_replaced_given_its_own_input():
    model, x = Between(), torch.randn(1, 3, 4, 5)
    with switched_off(model, ""):
        torch.testing.assert_close(model(x), model.begin(x) + 1)
