"""danseg.ops.interpolation against F.interpolate, and what its pieces read."""

import pytest
import torch
from torch.nn import functional as F

from danseg.ops.interpolation import along_rows, bilinear, pieces


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("old", "new"), [(5, 40), (5, 41), (40, 7), (6, 6), (1, 4), (4, 1)])
@pytest.mark.parametrize("step", [1, 3, 100])
def test_pieces_resize_as_torch_does(old, new, step, align_corners, device):
    x = torch.randn(2, 3, old, dtype=torch.float64).to(device)
    out = torch.full((2, 3, new), torch.nan, dtype=torch.float64, device=device)
    for outputs, cells, piece in pieces(*bilinear(torch.arange(new), old, new, align_corners), step, x):
        out[..., outputs] = along_rows(x[..., cells], piece)
    want = F.interpolate(x, new, mode="linear", align_corners=align_corners)
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)


def test_a_piece_reads_no_more_than_it_needs_and_nothing_is_multiplied_by_one():
    found = pieces(*bilinear(torch.arange(80), 10, 80, False), 16, torch.empty(()))
    assert [cells for _, cells, _ in found] == [slice(max(0, k), min(10, k + 4)) for k in (-1, 1, 3, 5, 7)]
    same = pieces(*bilinear(torch.arange(9), 9, 9, True), 4, torch.empty(()))
    assert [piece for *_, piece in same] == [None] * 3
