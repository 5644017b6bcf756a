"""danseg.ops.pointwise_spatial_mask against the reference's energies and their gradients, in float64."""

import pytest
import torch

from danseg.ops import reference
from danseg.ops.pointwise_spatial_mask import Mask

# Groups of rows: several with fewer rows in the last, all in one; also of maps of one row and one column.
CASES = [((5, 4), 1), ((5, 4), 2), ((5, 4), 3), ((5, 4), 5), ((1, 6), 1), ((7, 1), 3), ((4, 3), 3)]
MASKS = [(9, 7), (10, 8), (3, 3), (2, 4), (13, 2), (1, 1)]


@pytest.mark.parametrize("kind", ["collect", "distribute"])
@pytest.mark.parametrize("mask_size", MASKS, ids=str)
@pytest.mark.parametrize(("size", "rows"), CASES, ids=str)
def test_groups_equal_the_reference_with_gradients(size, rows, mask_size, kind, device):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, *size, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(mask_size[0] * mask_size[1], 3, dtype=torch.float64, generator=generator)
    numbers = torch.einsum("mk,bhwk->bmhw", weight.requires_grad_(), hidden).unflatten(1, mask_size)
    expected = reference.pointwise_spatial_energies(numbers, kind)
    slope = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    expected_grads = torch.autograd.grad(expected, (hidden, weight), slope)

    height, width = size
    given = hidden.detach().to(device)
    mask = Mask(weight.detach().to(device), mask_size, kind, size, rows)
    grad_hidden, grad_cells = torch.zeros_like(given), torch.zeros_like(mask.cells)
    for first in range(0, height, rows):
        last = min(first + rows, height)
        places = slice(first * width, last * width)
        energies = mask.energies(given, first, last)
        torch.testing.assert_close(energies.flatten(2).cpu(), expected[:, places], rtol=1e-12, atol=1e-13)
        some = slope[:, places].unflatten(2, size).to(device)
        mask.add_gradients(some, given, first, last, grad_hidden, grad_cells)
    grad_weight = grad_cells[rows - 1 : rows - 1 + mask_size[0]]
    grad_weight = (grad_weight if kind == "collect" else grad_weight.flip(0)).flatten(0, 1)
    for got, want in zip((grad_hidden, grad_weight), expected_grads, strict=True):
        torch.testing.assert_close(got.cpu(), want, rtol=1e-11, atol=1e-12)
