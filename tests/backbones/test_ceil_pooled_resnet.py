import pytest
import torch
from mmseg.models.backbones import ResNet
from torch.nn import functional as F

from danseg.backbones import CeilPooledResNet

SMALL = dict(depth=18, base_channels=4, stem_channels=8, deep_stem=True)


@pytest.mark.parametrize("side, rows", [(49, 13), (48, 13), (50, 13), (46, 12)])
def test_the_stem_pools_with_sizes_rounded_up(side, rows):
    torch.manual_seed(0)
    backbone = CeilPooledResNet(**SMALL)
    backbone.eval()
    image = torch.randn(1, 3, side, 65)
    stem = backbone.stem(image)
    wanted = backbone.layer1(F.max_pool2d(stem, 3, 2, 1, ceil_mode=True))
    found = backbone(image)[0]
    assert torch.equal(found, wanted) and found.shape[2:] == (rows, 17)


@pytest.mark.parametrize("deep", [True, False])
def test_on_sides_of_8n_plus_1_it_is_mmsegs(deep):
    torch.manual_seed(0)
    ours, theirs = CeilPooledResNet(**{**SMALL, "deep_stem": deep}), ResNet(**{**SMALL, "deep_stem": deep})
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.eval(), theirs.eval()
    image = torch.randn(1, 3, 49, 65)
    for mine, other in zip(ours(image), theirs(image), strict=True):
        assert torch.equal(mine, other)
