"""danseg.ops.attention against the equation in float64, its memory, and how compilers see it."""

import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from danseg.ops import attention, reference
from danseg.ops.fused_attention import fused_kernels_take

SHAPES = [
    # batch, N, M, C, D: square, rectangular, one query, one key, wide values
    (2, 35, 35, 6, 6),
    (3, 35, 23, 6, 11),
    (1, 1, 7, 3, 5),
    (2, 5, 1, 2, 3),
]


def _inputs(batch, n, m, c, d, dtype, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(*shape, dtype=torch.float64, generator=generator).to(device, dtype).requires_grad_()
        for shape in ((batch, n, c), (batch, m, c), (batch, m, d))
    )


@pytest.mark.parametrize("block_size", [None, 1, 4, 80, 1000])  # 80: a block holds two of three maps
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_equation_with_gradients_in_float64(shape, block_size, device):
    query, key, value = _inputs(*shape, torch.float64, device)
    out = attention(query, key, value, scale=0.7, block_size=block_size)
    expected = reference.attention(query, key, value, 0.7)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    slope = torch.randn_like(out)
    grads = torch.autograd.grad(out, (query, key, value), slope)
    expected_grads = torch.autograd.grad(expected, (query, key, value), slope)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("by_channel", [True, False])
def test_float32_with_and_without_onednn_in_both_layouts(onednn, by_channel):
    query, key, value = (t.detach() for t in _inputs(2, 70, 45, 16, 24, torch.float32))
    if by_channel:
        value = value.mT.contiguous().mT
    inputs = [t.requires_grad_() for t in (query, key, value)]
    with torch.backends.mkldnn.flags(enabled=onednn):
        out = attention(*inputs, block_size=32)  # less than one map: products of one pair of matrices
        slope = torch.randn_like(out)
        grads = torch.autograd.grad(out, inputs, slope)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    expected = reference.attention(*wide)
    expected_grads = torch.autograd.grad(expected, wide, slope.double())
    for got, want in zip((out, *grads), (expected, *expected_grads), strict=True):
        assert (got.double() - want).abs().max() / want.abs().max() < 1e-5


def test_gradcheck():
    query, key, value = _inputs(2, 7, 5, 3, 4, torch.float64)
    assert torch.autograd.gradcheck(lambda *t: attention(*t, scale=0.5, block_size=3), (query, key, value))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)]
)
def test_lower_precision_stays_near_float64(dtype, tolerance, device):
    query, key, value = _inputs(2, 35, 23, 16, 11, dtype, device)
    out = attention(query, key, value, block_size=8)
    assert out.dtype == dtype
    wide = [t.detach().double().requires_grad_() for t in (query, key, value)]
    expected = reference.attention(*wide)
    slope = torch.randn_like(out)
    grads = torch.autograd.grad(out, (query, key, value), slope)
    expected_grads = torch.autograd.grad(expected, wide, slope.double())
    for got, want in zip((out, *grads), (expected, *expected_grads), strict=True):
        error = (got.double() - want).abs().max() / want.abs().max()
        assert error < tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_energies_beyond_float16_do_not_overflow(dtype, device):
    # Energies of 131072; float16 ends at 65504.
    query = torch.full((1, 4, 512), 16.0, dtype=dtype, device=device)
    key = torch.cat([query[:, :2], -query[:, :2]], dim=1)
    value = torch.arange(4.0).view(1, 4, 1).to(query)
    out = attention(query, key, value)
    torch.testing.assert_close(out, torch.full_like(out, 0.5))  # the mean of values 0 and 1


def test_peaked_maps_keep_their_gradients(device):
    # Energies far apart: most of the map underflows, as in a trained network.
    query, key, value = (t.detach() for t in _inputs(1, 40, 30, 16, 8, torch.float64, device))
    narrow = [
        (8 * query).float().requires_grad_(),
        (8 * key).float().requires_grad_(),
        value.float().requires_grad_(),
    ]
    wide = [t.detach().double().requires_grad_() for t in narrow]
    out, expected = attention(*narrow), torch.softmax(wide[0] @ wide[1].transpose(1, 2), -1) @ wide[2]
    slope = torch.randn_like(out)
    grads = torch.autograd.grad(out, narrow, slope)
    expected_grads = torch.autograd.grad(expected, wide, slope.double())
    for got, want in zip((out, *grads), (expected, *expected_grads), strict=True):
        assert (got.double() - want).abs().max() / want.abs().max() < 2e-4


def test_bfloat16_gradients_survive_values_far_from_zero(device):
    # A common offset of the values cancels in the energies' gradient, in 16 bits only after rounding.
    query, key, value = (t.detach() for t in _inputs(1, 300, 300, 32, 64, torch.float64, device))
    narrow = [(t * 0.2).bfloat16().requires_grad_() for t in (query, key)]
    narrow.append((value + 3).bfloat16().requires_grad_())
    wide = [t.detach().double().requires_grad_() for t in narrow]
    slope = torch.ones_like(narrow[2])
    slope[:, ::2] = 2
    grads = torch.autograd.grad(attention(*narrow), narrow, slope)
    expected = torch.autograd.grad(reference.attention(*wide), wide, slope.double())
    for got, want in zip(grads, expected, strict=True):
        assert (got.double() - want).norm() / want.norm() < 2e-2


@pytest.mark.parametrize("block_size", [None, 7, 30])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_products_of_16_bits_that_are_kept_in_float32(dtype, tolerance, block_size, device, monkeypatch):
    """As GPUs make them for queries wider than the fused kernels take. A CPU multiplies float32 instead."""
    module = sys.modules[attention.__module__]
    monkeypatch.setattr(module, "multiplies_wide", lambda x: x.dtype == dtype)
    query, key, value = (t.detach() for t in _inputs(3, 13, 11, 300, 24, dtype, device))
    inputs = [t.requires_grad_() for t in (query, key, value.add(2))]
    out = attention(*inputs, scale=0.05, block_size=block_size)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    expected = reference.attention(*wide, 0.05)
    slope = torch.randn(out.shape, dtype=torch.float64).to(out)
    grads = torch.autograd.grad(out, inputs, slope)
    expected_grads = torch.autograd.grad(expected, wide, slope.double())
    for got, want in zip((out, *grads), (expected, *expected_grads), strict=True):
        assert got.dtype == dtype
        assert (got.double() - want).norm() / want.norm() < tolerance


def test_autocast_does_not_narrow_the_energies(device):
    query, key, value = (t.detach().float() for t in _inputs(1, 30, 30, 64, 8, torch.float32, device))
    plain = attention(query, key, value)
    with torch.autocast(device.type, torch.bfloat16):
        under_autocast = attention(query, key, value)
    assert torch.equal(plain, under_autocast)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block_size", [None, 5, 30])  # 5: rows of one map, 30: two of three maps
def test_values_given_as_a_feature_map_come_back_as_one(block_size, dtype, device):
    query, key, value = _inputs(3, 12, 13, 3, 5, dtype, device)
    by_channel = value.detach().mT.contiguous().mT.requires_grad_()
    out = attention(query, key, by_channel, block_size=block_size)
    expected = attention(query, key, value)
    (grad,) = torch.autograd.grad(out.square().sum(), by_channel)
    (expected_grad,) = torch.autograd.grad(expected.square().sum(), value)
    fused = fused_kernels_take(query, value)
    if fused and block_size is None:  # of values padded to a multiple of 8, without what was padded
        assert out.stride()[1:] == (1, len(query[0]))
    else:
        assert out.mT.is_contiguous() and grad.mT.is_contiguous()
    if fused:  # other products than those of blocks: each rounds weights, sums and outputs to 8 bits
        for got, want in ((out, expected), (grad, expected_grad)):
            assert (got - want).abs().max() <= 2**-6 * want.abs().max()
    else:
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(grad, expected_grad)


def test_operators_fulfil_torchs_contract():
    query, key, value = _inputs(2, 9, 7, 3, 5, torch.float32)
    torch.library.opcheck(torch.ops.danseg.attention_forward, (query, key, value, 0.5, 4, True))
    with torch.no_grad():
        out, lse = torch.ops.danseg.attention_forward(query, key, value, 0.5, 4, True)
        args = (torch.randn_like(out), query, key, value, out, lse, 0.5, 4)
        torch.library.opcheck(torch.ops.danseg.attention_backward, args)


def test_compile_without_graph_breaks():
    query, key, value = _inputs(1, 9, 7, 3, 5, torch.float32)
    compiled = torch.compile(lambda *t: attention(*t).square(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(query, key, value), attention(query, key, value).square())
    got = torch.autograd.grad(compiled(query, key, value).sum(), (query, key, value))
    want = torch.autograd.grad(attention(query, key, value).square().sum(), (query, key, value))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


_PEAK = """
import sys, torch
from danseg.ops import attention, reference
n = 4096
q, k, v = (torch.randn(1, n, c, requires_grad=True) for c in (8, 8, 32))
function = dict(danseg=attention, plain=reference.attention)[sys.argv[1]]
function(q[:, :64], k[:, :64], v[:, :64]).sum().backward()
def run():
    out = function(q, k, v)
    out.sum().backward()
    return out
print(peak_growth(run))
"""


@pytest.mark.slow
def test_training_memory_is_far_below_the_plain_form(extra_peak):
    n_by_n = 4096 * 4096 * 4
    plain, ours = extra_peak(_PEAK, "plain"), extra_peak(_PEAK, "danseg")
    assert plain > 3 * n_by_n  # the measurement sees the map
    assert ours < n_by_n / 2
    assert ours < plain / 4


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 5), (2, 5, 3), (2, 5, 3)), r"\(2, 5\)"),
        (((2, 5, 3), (2, 5, 4), (2, 5, 3)), r"\(2, 5, 4\)"),
        (((2, 5, 3), (2, 6, 3), (2, 5, 3)), r"\(2, 6, 3\)"),
        (((2, 5, 3), (1, 5, 3), (1, 5, 3)), r"\(1, 5, 3\)"),
        (((2, 5, 3), (2, 0, 3), (2, 0, 3)), "at least one key"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, message):
    with pytest.raises(ValueError, match=message):
        attention(*(torch.randn(shape) for shape in shapes))


def test_other_bad_arguments_are_named():
    x = torch.randn(1, 4, 3)
    with pytest.raises(ValueError, match="float64.*cast"):
        attention(x, x.double(), x)
    with pytest.raises(ValueError, match="int64"):
        attention(x.long(), x.long(), x.long())
    with pytest.raises(ValueError, match="block_size.*0"):
        attention(x, x, x, block_size=0)
    with pytest.raises(ValueError, match="meta"):
        attention(x, x.to("meta"), x)


def test_operations_are_counted_like_plain_ones():
    query, key, value = _inputs(2, 35, 23, 6, 11, torch.float32)
    with FlopCounterMode(display=False) as ours:
        attention(query, key, value).sum().backward()
    with FlopCounterMode(display=False) as plain:
        ((query @ key.transpose(1, 2)).softmax(-1) @ value).sum().backward()
    again = 2 * 2 * 35 * 23 * 6  # the backward pass computes the energies a second time
    assert ours.get_total_flops() == plain.get_total_flops() + again
