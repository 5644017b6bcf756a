"""PyramidalConv against its equation in float64."""

import pytest
import torch

from danseg.backbones.pyramidal_conv import PyramidalConv
from danseg.ops import reference


@pytest.mark.parametrize("stride", [1, 2])
def test_equals_the_equation(stride, device):
    torch.manual_seed(0)
    module = PyramidalConv(16, groups=(1, 2, 4, 4), stride=stride, dilation=2).double()
    x = torch.randn(2, 16, 9, 12, dtype=torch.float64)
    expected = [
        reference.convolution(x, level.weight, stride, 2, groups)
        for level, groups in zip(module.levels, (1, 2, 4, 4), strict=True)
    ]
    found = module.to(device)(x.to(device)).cpu()
    torch.testing.assert_close(found, torch.cat(expected, dim=1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("levels", "channels"),
    [(4, [16, 16, 16, 16]), (3, [16, 16, 32]), (2, [32, 32]), (1, [64])],
)
def test_levels_share_the_channels_as_in_the_authors_networks(levels, channels):
    module = PyramidalConv(64, (3, 5, 7, 9)[:levels], (1, 4, 8, 16)[:levels])
    assert [level.out_channels for level in module.levels] == channels
    assert [level.groups for level in module.levels] == [1, 4, 8, 16][:levels]


def test_groups_give_way_in_narrow_maps():
    assert [level.groups for level in PyramidalConv(24).levels] == [1, 2, 2, 2]


def test_each_level_reaches_as_far_as_its_kernel():
    x = torch.zeros(1, 4, 31, 31)
    x[:, :, 15, 15] = 1
    out = PyramidalConv(4, dilation=3, groups=(1, 1, 1, 1))(x)[0]
    for channel, size in zip(out, (3, 5, 7, 9), strict=True):
        assert channel.abs().sum(dim=0).nonzero().flatten().tolist() == [
            15 + 3 * (i - size // 2) for i in range(size)
        ]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="divisible by 4 for 3 levels, got 6"):
        PyramidalConv(6, (3, 5, 7), (1, 1, 1))
    with pytest.raises(ValueError, match=r"odd, got \(3, 4\)"):
        PyramidalConv(8, (3, 4), (1, 1))
    with pytest.raises(ValueError, match="one entry per level"):
        PyramidalConv(8, (3, 5))
