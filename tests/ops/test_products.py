"""danseg.ops.products against plain products in float64."""

import pytest
import torch

from danseg.ops.products import dot_product, energies, product, wide_product


def _inputs(dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 11, 3), (2, 7, 3), (2, 7, 5))
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator).to(device, dtype) for shape in shapes
    ]


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("entries", [1, 2])
def test_product_with_and_without_bias(entries, onednn, device):
    a, b, _ = (t[:entries].float() for t in _inputs(device=device))
    bias = torch.randn(entries, 7).to(device)
    expected = torch.einsum("erk,esk->ers", a.double(), b.double())
    with torch.backends.mkldnn.flags(enabled=onednn):
        torch.testing.assert_close(product(a, b).double(), expected, rtol=1e-5, atol=1e-5)
        got = product(a, b, bias).double()
    torch.testing.assert_close(got, expected + bias.double()[:, None], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_wide_products_are_those_of_the_rounded_matrices(dtype, device):
    a, b, _ = _inputs(dtype, device)
    bias = torch.randn(2, 7).to(device, torch.promote_types(dtype, torch.float32))
    expected = 0.3 * torch.einsum("erk,esk->ers", a.double(), b.double())
    got = wide_product(a, b, scale=0.3)
    assert got.dtype == bias.dtype
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    got = wide_product(a, b, bias, 0.3)
    torch.testing.assert_close(got.double(), expected + bias.double()[:, None], rtol=1e-5, atol=1e-5)


def test_dot_product_is_that_of_the_whole_map_with_gradients(device):
    inputs = [t.requires_grad_() for t in _inputs(device=device)]
    query, key, value = inputs
    expected = torch.einsum("bnm,bmd->bnd", 0.3 * torch.einsum("bnc,bmc->bnm", query, key), value)
    out = dot_product(*inputs, scale=0.3)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    slope = torch.randn_like(out)
    grads = torch.autograd.grad(out, inputs, slope)
    for got, want in zip(grads, torch.autograd.grad(expected, inputs, slope), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_sums_over_positions_stay_in_float16s_range(device):
    x = torch.full((1, 4096, 2), 8.0, dtype=torch.float16, device=device)  # 4096 · 64 is beyond 65504
    assert torch.equal(dot_product(x, x, x, scale=1 / 4096), torch.full_like(x, 2 * 8.0**3))


def test_energies_are_wide_whatever_autocast_says(device):
    query, key, _ = _inputs(torch.bfloat16, device)
    with torch.autocast(device.type, torch.bfloat16):
        got = energies(query, key)
    assert got.dtype == torch.float32
    expected = torch.einsum("bnc,bmc->bnm", query.float(), key.float())
    # On a GPU another kernel may add in another order. Products of bfloat16 would be off by 1e-2.
    torch.testing.assert_close(got, expected, rtol=0, atol=0 if device.type == "cpu" else 1e-5)
