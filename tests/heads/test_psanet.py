"""PSANetHead against mmseg's PSAHead, whose compiled operator is filled in by loops over positions."""

from unittest import mock

import pytest
import torch
from mmseg.models.decode_heads import psa_head
from mmseg.registry import MODELS
from torch import nn

import danseg  # noqa: F401  (registers PSANetHead)
from danseg.visualization.attention_recording import record_attention
from small_head import COMMON

ARGS = dict(mask_size=(9, 13))
NEEDED = {"compact": dict(mask_size=(5, 7))}  # the contract's map of 9x13, shrunk by 2


class PlainMask(nn.Module):
    """What the compiled operator does: move the numbers of a mask to the positions that they belong to.

    The result is (B, H·W, H, W). Position i's number for position j is at [j, i] for ``collect``, and at
    [i, j] for ``distribute``.
    """

    def __init__(self, psa_type: str, mask_size: tuple[int, int]) -> None:
        super().__init__()
        self.psa_type = psa_type
        self.mask_size = mask_size

    def forward(self, mask: torch.Tensor) -> torch.Tensor:
        batch, _, height, width = mask.shape
        mask_height, mask_width = self.mask_size
        moved = {}
        for y in range(height):
            for x in range(width):
                for row in range(mask_height):
                    for column in range(mask_width):
                        v, u = y + row - (mask_height - 1) // 2, x + column - (mask_width - 1) // 2
                        if 0 <= v < height and 0 <= u < width:
                            pair = (v * width + u, y * width + x)
                            place = pair if self.psa_type == "collect" else pair[::-1]
                            moved[place] = mask[:, row * mask_width + column, y, x]
        number = height * width
        zero = mask.new_zeros(batch)
        flat = [moved.get((i, j), zero) for i in range(number) for j in range(number)]
        return torch.stack(flat, dim=1).view(batch, number, height, width)


def _theirs(**changes) -> nn.Module:
    with mock.patch.object(psa_head, "PSAMask", PlainMask):
        return psa_head.PSAHead(**{**COMMON, **ARGS, **changes})


def counterpart() -> nn.Module:
    return _theirs()


@pytest.mark.parametrize("psa_type", ["collect", "distribute", "bi-direction"])
@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((7, 9), dict(mask_size=(7, 9), shrink_factor=2)),
        ((7, 9), dict(mask_size=(8, 10), shrink_factor=2, align_corners=True)),
        ((6, 9), dict(mask_size=(3, 2), shrink_factor=2, normalization_factor=None)),
        ((5, 4), dict(mask_size=(3, 5), shrink_factor=1, psa_softmax=False)),
        ((7, 9), dict(mask_size=(4, 5), shrink_factor=2, compact=True, swap_compact=True)),
    ],
    ids=str,
)
def test_every_setting_equals_mmsegs(psa_type, size, changes, device):
    own = ("swap_compact",)
    theirs = (
        _theirs(psa_type=psa_type, **{key: changes[key] for key in changes if key not in own}).double().eval()
    )
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, 0.05, 0.2)
    ours = MODELS.build({**COMMON, **ARGS, **changes, "type": "PSANetHead", "psa_type": psa_type})
    ours = ours.double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 24, *size, dtype=torch.float64).to(device)
    ours.to(device), theirs.to(device)
    with torch.no_grad():
        torch.testing.assert_close(ours([x]), theirs([x]), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("psa_type", "other"), [("collect", "distribute"), ("distribute", "collect")])
def test_mmsegs_compact_head_computes_the_other_direction(psa_type, other):
    theirs = _theirs(psa_type=psa_type, mask_size=(4, 5), compact=True).double().eval()
    build = {**COMMON, **ARGS, "type": "PSANetHead", "mask_size": (4, 5), "compact": True}
    x = [torch.randn(2, 24, 7, 9, dtype=torch.float64)]
    with torch.no_grad():
        want = theirs(x)
        for changes in (dict(psa_type=other), dict(psa_type=psa_type, swap_compact=True)):
            ours = MODELS.build({**build, **changes}).double().eval()
            ours.load_state_dict(theirs.state_dict(), strict=True)
            torch.testing.assert_close(ours(x), want, rtol=1e-9, atol=1e-11)
        asked = MODELS.build({**build, "psa_type": psa_type}).double().eval()
        asked.load_state_dict(theirs.state_dict(), strict=True)
        assert (asked(x) - want).abs().max() > 1e-4 * want.abs().max()


def test_the_authors_projection_has_no_padding():
    head = MODELS.build({**COMMON, **ARGS, "type": "PSANetHead", "proj_padding": 0}).eval()
    assert head.proj.conv.padding == (0, 0)
    assert head([torch.randn(1, 24, 9, 13)]).shape == (1, 5, 9, 13)


def test_its_attention_can_be_recorded(device):
    head = MODELS.build({**COMMON, **ARGS, "type": "PSANetHead"}).eval().to(device)
    x = torch.randn(1, 24, 9, 13).to(device)
    with record_attention(head) as recorded:
        head([x])
    assert recorded[""].map_size == (9, 13)
    rows = recorded[""].rows([(8, 0)])
    torch.testing.assert_close(rows, head.attention_map(x, [(8, 0)]))
    torch.testing.assert_close(rows.sum().cpu(), torch.tensor(1.0))
