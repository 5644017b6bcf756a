"""danseg.ops.concatenation_attention against the equation in float64, its memory, and under compilers."""

import pytest
import torch

from danseg.ops import concatenation_attention, reference


def _inputs(batch, n, m, d, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, n), (batch, m), (batch, m, d))
    return tuple(
        torch.randn(shape, dtype=torch.float64, generator=generator).to(device, dtype).requires_grad_()
        for shape in shapes
    )


@pytest.mark.parametrize("shape", [(2, 35, 35, 6), (3, 11, 23, 4), (1, 1, 7, 3), (2, 5, 1, 2)], ids=str)
def test_equals_the_equation_with_gradients_in_float64(shape, device):
    inputs = _inputs(*shape, device=device)
    out, expected = concatenation_attention(*inputs), reference.concatenation(*inputs)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    slope = torch.randn_like(out)
    grads = torch.autograd.grad(out, inputs, slope)
    expected_grads = torch.autograd.grad(expected, inputs, slope)
    for got, want in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shift", [-100.0, 100.0])
def test_no_weight_and_every_weight_above_zero(shift, device):
    a, b, value = (t.detach() for t in _inputs(2, 5, 7, 3, device=device))
    torch.testing.assert_close(
        concatenation_attention(a + shift, b, value), reference.concatenation(a + shift, b, value)
    )


def test_equal_keys_and_sums_of_exactly_zero(device):
    a = torch.tensor([[-1.0, 0.0, 2.0]], dtype=torch.float64, device=device)
    b = torch.tensor([[1.0, 1.0, -2.0, 0.0]], dtype=torch.float64, device=device)
    value = torch.randn(1, 4, 3, dtype=torch.float64).to(device)
    torch.testing.assert_close(concatenation_attention(a, b, value), reference.concatenation(a, b, value))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)]
)
def test_lower_precision_stays_near_float64(dtype, tolerance, device):
    inputs = tuple(t.detach() for t in _inputs(2, 700, 700, 8, dtype, device))
    out, expected = concatenation_attention(*inputs), reference.concatenation(*(t.double() for t in inputs))
    assert out.dtype == dtype
    assert (out.double() - expected).abs().max() / expected.abs().max() < tolerance


def test_gradcheck(device):
    # On a GPU, queries that read one sum add their gradients to it in any order.
    tolerance = 0.0 if device.type == "cpu" else 1e-12
    inputs = _inputs(2, 5, 6, 3, device=device)
    assert torch.autograd.gradcheck(concatenation_attention, inputs, nondet_tol=tolerance)


def test_exports(device):
    class Module(torch.nn.Module):
        def forward(self, a, b, value):
            return concatenation_attention(a, b, value)

    inputs = tuple(t.detach() for t in _inputs(2, 9, 7, 3, torch.float32, device))
    expected = concatenation_attention(*inputs)
    torch.testing.assert_close(torch.export.export(Module(), inputs).module()(*inputs), expected)


_PEAK = """
import torch
from danseg.ops import concatenation_attention
a, b, value = (torch.randn(1, 8192, *d, requires_grad=True) for d in ((), (), (16,)))
concatenation_attention(a[:, :64], b[:, :64], value[:, :64]).sum().backward()
print(peak_growth(lambda: concatenation_attention(a, b, value).sum().backward()))
"""


@pytest.mark.slow
def test_training_memory_is_far_below_one_map(extra_peak):
    assert extra_peak(_PEAK) < 8192 * 8192 * 4 / 32


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 5), (2, 6), (2, 5, 3)), r"b \(2, 6\)"),
        (((1, 5), (2, 6), (2, 6, 3)), r"a \(1, 5\)"),
        (((2, 5, 1), (2, 6), (2, 6, 3)), r"a \(2, 5, 1\)"),
        (((2, 5), (2, 0), (2, 0, 3)), "at least one key"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, message):
    with pytest.raises(ValueError, match=message):
        concatenation_attention(*(torch.randn(shape) for shape in shapes))
