"""danseg.ops.criss_cross_attention against the equation in float64, its memory, and how compilers see it."""

import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from danseg.ops import criss_cross_attention, reference

SHAPES = [
    # batch, C, D, H, W: wide, tall, one row, one column, one position
    (2, 3, 5, 4, 7),
    (1, 3, 2, 6, 3),
    (2, 2, 3, 1, 6),
    (2, 2, 3, 5, 1),
    (1, 2, 3, 1, 1),
]


def _inputs(batch, c, d, height, width, dtype, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(batch, k, height, width, dtype=torch.float64, generator=generator)
        .to(device, dtype)
        .requires_grad_()
        for k in (c, c, d)
    )


# The equation goes from position to position, which is slow on a GPU: it is always computed on the CPU.
def _with_gradients(function, inputs, slope):
    out = function(*inputs)
    return out, *torch.autograd.grad(out, inputs, slope.to(out))


@pytest.mark.parametrize("block_bytes", [2**20, 1200, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_equation_with_gradients_in_float64(shape, block_bytes, monkeypatch, device):
    # Blocks of all rows, of some, of one. In the package, the module's name is that of the function.
    module = sys.modules[criss_cross_attention.__module__]
    monkeypatch.setattr(module, "block_bytes", lambda *_: block_bytes)
    monkeypatch.setattr(module, "cached_bytes", lambda _: block_bytes // 4)
    inputs = _inputs(*shape, torch.float64, device)
    slope = torch.randn(inputs[2].shape, dtype=torch.float64)
    got = _with_gradients(criss_cross_attention, inputs, slope)
    expected = _with_gradients(reference.criss_cross_attention, _inputs(*shape, torch.float64), slope)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-10, atol=1e-12)
    without_grad = criss_cross_attention(*(t.detach() for t in inputs))
    torch.testing.assert_close(without_grad.cpu(), expected[0].detach())


def test_a_map_without_rows_stays_without(device):
    x = torch.randn(1, 3, 0, 4, device=device, requires_grad=True)
    value = torch.randn(1, 5, 0, 4, device=device)
    out = criss_cross_attention(x, x, value)
    assert out.shape == value.shape
    out.sum().backward()
    assert x.grad.shape == x.shape


def test_gradcheck(device):
    assert torch.autograd.gradcheck(criss_cross_attention, _inputs(2, 2, 3, 3, 4, torch.float64, device))


def test_a_position_counts_itself_once(device):
    query = torch.zeros(1, 1, 3, 4, device=device)  # all energies alike: a mean over 3 + 4 - 1 positions
    value = torch.zeros(1, 1, 3, 4, device=device)
    value[0, 0, 1, 2] = 6
    out = criss_cross_attention(query, query, value)[0, 0]
    expected = torch.zeros(3, 4, device=device)
    expected[1, :] = 1
    expected[:, 2] = 1
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)]
)
def test_lower_precision_stays_near_float64(dtype, tolerance, device):
    inputs = _inputs(2, 8, 11, 9, 12, dtype, device)
    wide = [t.detach().cpu().double().requires_grad_() for t in inputs]
    slope = torch.randn(inputs[2].shape).to(dtype)
    got = _with_gradients(criss_cross_attention, inputs, slope)
    expected = _with_gradients(reference.criss_cross_attention, wide, slope)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == dtype
        assert (a.cpu().double() - b).abs().max() / b.abs().max() < tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_energies_beyond_float16_do_not_overflow(dtype, device):
    query = torch.full(
        (1, 512, 1, 4), 16.0, dtype=dtype, device=device
    )  # energies of 131072; float16 ends at 65504
    key = query.clone()
    key[..., 2:] *= -1
    value = torch.arange(4.0).view(1, 1, 1, 4).to(query)
    out = criss_cross_attention(query, key, value)
    torch.testing.assert_close(out, torch.full_like(out, 0.5))  # the mean of values 0 and 1


def test_bfloat16_gradients_survive_values_far_from_zero(device):
    # A common offset of the values cancels in the energies' gradient, in 16 bits only after rounding.
    query, key, value = (t.detach() for t in _inputs(1, 8, 64, 9, 12, torch.float64, device))
    narrow = [t.bfloat16().requires_grad_() for t in (query, key, value + 10)]
    wide = [t.detach().cpu().double().requires_grad_() for t in narrow]
    slope = torch.ones(1, 64, 9, 12).bfloat16()
    slope[..., ::2] = 2
    got = _with_gradients(criss_cross_attention, narrow, slope)
    expected = _with_gradients(reference.criss_cross_attention, wide, slope)
    for a, b in zip(got, expected, strict=True):
        assert (a.cpu().double() - b).norm() / b.norm() < 3e-2


def test_channels_last_in_and_out(device):
    inputs = [t.detach() for t in _inputs(2, 3, 5, 4, 7, torch.float32, device)]
    out = criss_cross_attention(*inputs)
    assert out.is_contiguous(memory_format=torch.channels_last)
    by_position = [t.contiguous(memory_format=torch.channels_last) for t in inputs]
    assert torch.equal(criss_cross_attention(*by_position), out)


def test_operators_fulfil_torchs_contract():
    maps = _inputs(2, 3, 5, 4, 6, torch.float32)
    inputs = tuple(t.detach().permute(0, 2, 3, 1).contiguous() for t in maps)
    with_grad = tuple(t.clone().requires_grad_() for t in inputs)
    torch.library.opcheck(torch.ops.danseg.criss_cross_forward, with_grad)
    torch.library.opcheck(torch.ops.danseg.criss_cross_backward, (torch.randn_like(inputs[2]), *inputs))


def test_operations_are_counted(device):
    inputs = _inputs(2, 3, 5, 4, 7, torch.float32, device)
    entries = 2 * 4 * 7 * (4 + 7)  # of the map
    with FlopCounterMode(display=False) as forward:
        out = criss_cross_attention(*inputs)
    assert forward.get_total_flops() == 2 * entries * (3 + 5)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert backward.get_total_flops() == 2 * entries * (3 * 3 + 2 * 5)


_PEAK = """
import sys, torch
from danseg.ops import criss_cross_attention
def plain(q, k, v):
    row = torch.einsum("bchw,bcht->bhwt", q, k)
    column = torch.einsum("bchw,bcsw->bhws", q, k)
    height, width = q.shape[2:]
    column.diagonal(0, 1, 3).fill_(-torch.inf)
    weight = torch.cat([column, row], dim=-1).softmax(-1)
    out = torch.einsum("bhws,bcsw->bchw", weight[..., :height], v)
    return out + torch.einsum("bhwt,bcht->bchw", weight[..., height:], v)
q, k, v = (torch.randn(1, c, 256, 256, requires_grad=True) for c in (4, 4, 8))
function = dict(danseg=criss_cross_attention, plain=plain)[sys.argv[1]]
function(q[..., :9], k[..., :9], v[..., :9]).sum().backward()
def run():
    out = function(q, k, v)
    out.sum().backward()
    return out
print(peak_growth(run))
"""


@pytest.mark.slow
def test_training_memory_is_below_the_map(extra_peak):
    the_map = 256 * 256 * (256 + 256) * 4  # 128 MiB
    plain, ours = extra_peak(_PEAK, "plain"), extra_peak(_PEAK, "danseg")
    assert plain > 2 * the_map  # the measurement sees the map
    assert ours < the_map / 3


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 5, 3), (2, 5, 3), (2, 5, 3)), r"\(2, 5, 3\)"),
        (((2, 5, 3, 4), (2, 6, 3, 4), (2, 5, 3, 4)), r"\(2, 6, 3, 4\)"),
        (((2, 5, 3, 4), (2, 5, 3, 4), (1, 5, 3, 4)), r"\(1, 5, 3, 4\)"),
        (((2, 5, 3, 4), (2, 5, 3, 4), (2, 5, 4, 3)), r"\(2, 5, 4, 3\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, message):
    with pytest.raises(ValueError, match=message):
        criss_cross_attention(*(torch.randn(shape) for shape in shapes))


def test_other_bad_arguments_are_named():
    x = torch.randn(1, 4, 3, 2)
    with pytest.raises(ValueError, match="float64.*cast"):
        criss_cross_attention(x, x.double(), x)
    with pytest.raises(ValueError, match="int64"):
        criss_cross_attention(x.long(), x.long(), x.long())
    with pytest.raises(ValueError, match="meta"):
        criss_cross_attention(x, x.to("meta"), x)
