"""danseg.ops.pointwise_spatial against PSANet's masks, moved cell by cell, in float64."""

import pytest
import torch

from danseg.ops import reference
from danseg.ops.pointwise_spatial import KINDS, pointwise_spatial_attention, row_energies

# Full, odd and even, smaller than the map, larger than needed, one cell.
MASKS = [(7, 13), (8, 14), (3, 5), (4, 2), (11, 15), (1, 1)]


def _inputs(mask_size):
    generator = torch.Generator().manual_seed(0)
    x, hidden = (torch.randn(2, c, 4, 7, dtype=torch.float64, generator=generator) for c in (5, 3))
    weight = torch.randn(mask_size[0] * mask_size[1], 3, dtype=torch.float64, generator=generator)
    return tuple(t.requires_grad_() for t in (x, hidden, weight))


def _energies(hidden, weight, mask_size, kind):
    mask = torch.einsum("mk,bkhw->bmhw", weight, hidden).unflatten(1, mask_size)
    return reference.pointwise_spatial_energies(mask, kind)


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask_size", MASKS, ids=str)
def test_equals_the_masks_with_gradients(mask_size, kind, softmax):
    x, hidden, weight = inputs = _inputs(mask_size)
    out = pointwise_spatial_attention(x, hidden, weight, mask_size, kind, softmax)
    energies = _energies(hidden, weight, mask_size, kind)
    weights = energies.exp() / energies.exp().sum(dim=2, keepdim=True) if softmax else energies
    expected = torch.einsum("bij,bcj->bci", weights, x.flatten(2)).view_as(x)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    slope = torch.randn_like(out)
    grads = torch.autograd.grad(out, inputs, slope, allow_unused=True)
    expected_grads = torch.autograd.grad(expected, inputs, slope)
    for got, want in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_the_map(kind):
    _, hidden, weight = _inputs((3, 5))
    rows = torch.cat([row_energies(hidden, weight, (3, 5), kind, row) for row in range(4)], dim=1)
    torch.testing.assert_close(rows, _energies(hidden, weight, (3, 5), kind), rtol=1e-10, atol=1e-12)


def test_bad_arguments_are_named():
    x, hidden, weight = _inputs((3, 5))
    with pytest.raises(ValueError, match="collect, distribute.*'both'"):
        pointwise_spatial_attention(x, hidden, weight, (3, 5), "both")
    with pytest.raises(ValueError, match=r"3x3.*\(9, 3\).*\(15, 3\)"):
        pointwise_spatial_attention(x, hidden, weight, (3, 3), "collect")
