"""PSANetHead against mmseg's PSAHead, whose compiled operator is filled in by loops over positions."""

from unittest import mock

import pytest
import torch
from mmseg.models.decode_heads import psa_head
from mmseg.registry import MODELS
from torch import nn

import danseg  # noqa: F401  (registers PSANetHead)
from danseg.visualization.attention_recording import record_attention
from danseg.visualization.attention_switch import switched_off
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


@pytest.mark.parametrize("psa_type", ["collect", "distribute", "bi-direction"])
@pytest.mark.parametrize(
    "changes",
    [
        dict(),
        dict(psa_softmax=False),
        dict(mask_size=(5, 7), compact=True),
        dict(mask_size=(5, 7), compact=True, swap_compact=True),
    ],
    ids=str,
)
def test_its_recorded_views_are_the_maps_that_it_gathers_with(psa_type, changes, device):
    """A map says how an output changes with a gathered feature, here a channel of ones in a single cell."""
    head = MODELS.build({**COMMON, **ARGS, **changes, "type": "PSANetHead", "psa_type": psa_type})
    head = head.double().eval().to(device)
    for parameter in head.parameters():
        nn.init.normal_(parameter, 0.1, 0.3)
    x = torch.randn(2, 24, 9, 13, dtype=torch.float64).to(device)
    with record_attention(head) as recorded, torch.no_grad():
        head([x])
    [shown] = recorded.values()
    assert shown.map_size == (9, 13)
    assert list(shown.views) == ["", *(("collect", "distribute") if psa_type == "bi-direction" else ())]
    with torch.no_grad():
        branches = {kind: rest for *rest, kind in head._branches(x, ("collect", "distribute"))}
        one_hot = torch.eye(35, dtype=torch.float64).unflatten(1, (5, 7)).expand(2, -1, -1, -1).to(device)
        gathered = {  # (B, N sources, 5, 7)
            kind: head._gather(one_hot, *mask, kind) for kind, (_, *mask) in branches.items()
        }
    gathered[""] = sum(gathered.values()) / len(gathered)
    # With the projection's padding, row 0 and column 12 come from outside the grid, and row 4 and column 6
    # from its middle.
    positions, cells = [(4, 6), (0, 12), (8, 0)], [(2, 3), (0, 6), (4, 0)]
    for name in shown.views:
        expected = torch.stack([gathered[name][:, :, row, column] for row, column in cells], dim=1)
        rows = shown.show(positions, name)
        torch.testing.assert_close(rows.flatten(2), expected, rtol=1e-9, atol=1e-11)


def test_a_corner_of_mmsegs_head_comes_from_the_projections_padding_and_its_neighbours_from_the_edge():
    """With ``proj_padding``, a position's cell is not where its place in the map would put it."""
    head = MODELS.build({**COMMON, **ARGS, "type": "PSANetHead"})
    without = MODELS.build({**COMMON, **ARGS, "type": "PSANetHead", "proj_padding": 0})
    for one, cells in ((head, (0, 0, 1, 8, 15, 16, 16)), (without, (0, 1, 2, 8, 14, 15, 16))):
        of_rows = tuple(one._cell((row, 0), (33, 33))[0] for row in (0, 2, 4, 16, 28, 30, 32))
        assert of_rows == cells


def test_without_attention_the_head_concatenates_zeros(device):
    head = MODELS.build({**COMMON, **ARGS, "type": "PSANetHead"}).eval().to(device)
    x = torch.randn(1, 24, 9, 13).to(device)
    with torch.no_grad():
        expected = head.cls_seg(head.bottleneck(torch.cat([x, torch.zeros_like(x)], dim=1)))
        assert not torch.allclose(head([x]), expected)
        with switched_off(head, ""):
            assert torch.equal(head([x]), expected)
