"""danseg.ops.interpolation against F.interpolate, and what its pieces read."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from danseg.ops.interpolation import along_rows, bilinear, pieces


def resize(old: int, new: int, align_corners: bool, step: int, like: torch.Tensor) -> list:
    return pieces(lambda index: bilinear(index, old, new, align_corners), (0, new), step, like)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("old", "new"), [(5, 40), (5, 41), (40, 7), (6, 6), (1, 4), (4, 1)])
@pytest.mark.parametrize("step", [1, 3, 100])
def test_pieces_resize_as_torch_does(old, new, step, align_corners, device):
    x = torch.randn(2, 3, old, dtype=torch.float64).to(device)
    out = torch.full((2, 3, new), torch.nan, dtype=torch.float64, device=device)
    for outputs, cells, piece in resize(old, new, align_corners, step, x):
        out[..., outputs] = along_rows(x[..., cells], piece)
    want = F.interpolate(x, new, mode="linear", align_corners=align_corners)
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)


def test_a_piece_reads_no_more_than_it_needs_and_nothing_is_multiplied_by_one():
    found = resize(10, 80, False, 16, torch.empty(()))
    assert [cells for _, cells, _ in found] == [slice(max(0, k), min(10, k + 4)) for k in (-1, 1, 3, 5, 7)]
    same = resize(9, 9, True, 4, torch.empty(()))
    assert [piece for *_, piece in same] == [None] * 3


class _Crossings(TorchDispatchMode):
    """Lists the operators that read or write on two devices."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        if len({tensor.device for tensor in tensors}) > 1:
            self.found.append(str(func))
        return out


def test_pieces_are_made_where_they_are_used_and_not_copied():
    """A copy from the host waits for a GPU's work, and no CUDA graph can capture it."""
    with _Crossings() as crossings:
        found = resize(10, 80, False, 16, torch.empty((), device="meta"))
    assert crossings.found == []
    for (*slices, piece), (*expected, on_cpu) in zip(
        found, resize(10, 80, False, 16, torch.empty(())), strict=True
    ):
        assert slices == expected and piece.is_meta and piece.shape == on_cpu.shape
