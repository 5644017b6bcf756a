"""danseg.ops.pointwise_spatial_attention against PSANet's masks, moved cell by cell, in float64."""

import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from danseg.ops import reference
from danseg.ops.pointwise_spatial_attention import KINDS, pointwise_spatial_attention, position_energies
from danseg.ops.pointwise_spatial_mask import Mask

# In the package, the module's name is that of the function.
MODULE = sys.modules[pointwise_spatial_attention.__module__]
# Full, odd and even, smaller than the map, larger than needed, one cell.
MASKS = [(7, 13), (8, 14), (3, 5), (4, 2), (11, 15), (1, 1)]


def _inputs(mask_size, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    x, hidden = (torch.randn(2, c, 4, 7, dtype=torch.float64, generator=generator) for c in (5, 3))
    weight = torch.randn(mask_size[0] * mask_size[1], 3, dtype=torch.float64, generator=generator)
    return tuple(t.to(device).requires_grad_() for t in (x, hidden, weight))


def _energies(hidden, weight, mask_size, kind):
    mask = torch.einsum("mk,bkhw->bmhw", weight, hidden).unflatten(1, mask_size)
    return reference.pointwise_spatial_energies(mask, kind)


def _force_rows(monkeypatch, rows):
    monkeypatch.setattr(MODULE, "_rows_at_once", lambda *_: rows)


@pytest.mark.parametrize("rows", [1, 3, 4])  # of 4: one at a time, and a last one alone, all at once
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask_size", MASKS, ids=str)
def test_equals_the_masks_with_gradients(mask_size, kind, softmax, rows, monkeypatch, device):
    _force_rows(monkeypatch, rows)
    x, hidden, weight = plain = _inputs(mask_size)  # cell by cell, which is slow on a GPU
    inputs = _inputs(mask_size, device)
    out = pointwise_spatial_attention(*inputs, mask_size, kind, softmax)
    energies = _energies(hidden, weight, mask_size, kind)
    weights = energies.exp() / energies.exp().sum(dim=2, keepdim=True) if softmax else energies
    expected = torch.einsum("bij,bcj->bci", weights, x.flatten(2)).view_as(x)
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-10, atol=1e-12)
    slope = torch.randn_like(expected)
    grads = torch.autograd.grad(out, inputs, slope.to(device), allow_unused=True)
    expected_grads = torch.autograd.grad(expected, plain, slope)
    for got, want in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(got.cpu(), want, rtol=1e-9, atol=1e-11)


def _rows(shape, mask_width, device):
    x, hidden = (torch.empty(shape, device=device).permute(0, 2, 3, 1) for _ in range(2))
    return MODULE._rows_at_once(x, hidden, mask_width)


def test_a_gpu_takes_as_many_rows_as_fit_its_budget():
    row_bytes = 97 * 97 * 97 * 4
    assert _rows((1, 512, 97, 97), 97, "meta") == 64 * 2**20 // row_bytes == 18
    assert _rows((1, 512, 97, 97), 193, "meta") == 9  # the numbers of a mask twice as wide
    assert _rows((2, 512, 97, 97), 97, "meta") == 9
    assert _rows((1, 512, 24, 24), 97, "meta") == 24  # all
    assert _rows((1, 8, 600, 600), 97, "meta") == 1
    assert _rows((0, 8, 9, 9), 9, "meta") == 9
    assert _rows((1, 512, 97, 97), 97, "cpu") == 1


def test_both_passes_take_several_rows_at_a_time(monkeypatch, device):
    groups = []

    class Recorded(MODULE.Mask):
        def energies(self, hidden, first, last):
            groups.append((first, last))
            return super().energies(hidden, first, last)

    _force_rows(monkeypatch, 3)
    monkeypatch.setattr(MODULE, "Mask", Recorded)
    pointwise_spatial_attention(*_inputs((3, 5), device), (3, 5), "collect").sum().backward()
    assert groups == [(0, 3), (3, 4)] * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask_size", MASKS)
def test_rows_of_the_map(kind, mask_size, device):
    _, hidden, weight = _inputs(mask_size, device)
    index = torch.tensor([27, 0, 9, 13]).to(device)
    rows = position_energies(hidden, weight, mask_size, kind, index)
    expected = _energies(hidden.cpu(), weight.cpu(), mask_size, kind)[:, index.cpu()]
    torch.testing.assert_close(rows.cpu(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)]
)
def test_lower_precision_stays_near_float64(kind, dtype, tolerance, rows, monkeypatch, device):
    _force_rows(monkeypatch, rows)
    narrow = [t.detach().to(dtype).requires_grad_() for t in _inputs((3, 5), device)]
    wide = [t.detach().double().requires_grad_() for t in narrow]
    slope = torch.randn(narrow[0].shape).to(dtype)
    results = []
    for inputs in (narrow, wide):
        out = pointwise_spatial_attention(*inputs, (3, 5), kind)
        results.append((out, *torch.autograd.grad(out, inputs, slope.to(out))))
    for got, want in zip(*results, strict=True):
        assert got.dtype == dtype
        assert (got.double() - want).abs().max() / want.abs().max() < tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_operators_fulfil_torchs_contract(kind, device):
    x, hidden, weight = (t.detach().float() for t in _inputs((3, 5), device))
    x, hidden = (t.permute(0, 2, 3, 1).contiguous() for t in (x, hidden))
    with_grad = tuple(t.clone().requires_grad_() for t in (x, hidden, weight))
    torch.library.opcheck(torch.ops.danseg.pointwise_spatial_forward, (*with_grad, [3, 5], kind, True))
    args = (torch.randn_like(x), x, hidden, weight, [3, 5], kind, True)
    torch.library.opcheck(torch.ops.danseg.pointwise_spatial_backward, args)


@pytest.mark.parametrize("kind", KINDS)
def test_operations_are_counted(kind, device):
    x, hidden, weight = inputs = _inputs((3, 5), device)
    mask = Mask(weight, (3, 5), kind, hidden.shape[2:], rows=1)
    with FlopCounterMode(display=False) as masks:
        for row in range(4):
            mask.energies(hidden.permute(0, 2, 3, 1), row, row + 1)
    gathered = 2 * 2 * 28**2 * 5
    with FlopCounterMode(display=False) as forward:
        out = pointwise_spatial_attention(*inputs, (3, 5), kind)
    assert forward.get_total_flops() == masks.get_total_flops() + gathered
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert backward.get_total_flops() == 3 * masks.get_total_flops() + 2 * gathered


_PEAK = """
import sys, torch
from danseg.ops.pointwise_spatial_attention import pointwise_spatial_attention
def plain(x, hidden, weight, mask_size, kind):
    cells = weight[: x.shape[2] * 64]  # as many as positions
    weights = torch.einsum("bkn,mk->bnm", hidden.flatten(2), cells).softmax(-1)
    return x.flatten(2) @ weights.mT
x, hidden = (torch.randn(1, 4, 64, 64, requires_grad=True) for _ in range(2))
weight = torch.randn(64 * 64, 4, requires_grad=True)
function = dict(danseg=pointwise_spatial_attention, plain=plain)[sys.argv[1]]
def run(rows=64):
    out = function(x[:, :, :rows], hidden[:, :, :rows], weight, (64, 64), sys.argv[2])
    out.sum().backward()
    return out
run(2)
print(peak_growth(run))
"""


@pytest.mark.slow
def test_training_memory_is_far_below_the_map(extra_peak):
    n_by_n = 4096 * 4096 * 4
    assert extra_peak(_PEAK, "plain", "") > 2 * n_by_n  # the measurement sees the map
    for kind in KINDS:
        assert extra_peak(_PEAK, "danseg", kind) < n_by_n / 8


def test_bad_arguments_are_named():
    x, hidden, weight = _inputs((3, 5))
    with pytest.raises(ValueError, match="collect, distribute.*'both'"):
        pointwise_spatial_attention(x, hidden, weight, (3, 5), "both")
    with pytest.raises(ValueError, match=r"3x3.*\(9, 3\).*\(15, 3\)"):
        pointwise_spatial_attention(x, hidden, weight, (3, 3), "collect")
    with pytest.raises(ValueError, match="collect, distribute.*'both'"):
        position_energies(hidden, weight, (3, 5), "both", torch.tensor([0]))
