"""What every function of danseg.ops promises on each device: the equation's numbers, any shape and layout."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cpu_alone import one_on_gpu
from danseg import ops
from danseg.ops import reference
from danseg.ops.fused_attention import fused_attention
from danseg.ops.inputs import energy_dtype
from danseg.ops.products import dot_product, energies, product
from danseg.ops.upsampled_cross_entropy import upsampled_pixel_losses
from danseg.ops.winograd_convolution import evaluated_weights
from deterministic import deterministic

BATCH = 2
#: Channels, height, width: one position, one row, one column; 7, 5, 24 and 15 positions.
SIZES = [(1, 1, 1), (3, 1, 7), (7, 5, 1), (8, 4, 6), (64, 3, 5)]
LARGER = (64, 9, 13)
MASK = (3, 5)
#: The largest error, relative to the largest number (or to 1), and on a GPU, which adds in another order.
TOLERANCES = {
    torch.float64: (1e-10, 1e-10),
    torch.float32: (1e-5, 5e-5),  # products in TF32 are off by 1e-3
    torch.bfloat16: (2e-2, 4e-2),
    torch.float16: (3e-3, 6e-3),
}


def _draw_labels(channels: int, height: int, width: int) -> Tensor:
    """(B, 2H + 1, 3W + 2): class ids, and some that are ignored."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, channels, (BATCH, 2 * height + 1, 3 * width + 2), generator=generator)
    return labels.masked_fill(torch.rand(labels.shape, generator=generator) < 0.2, 255)


LABELS = {size: _draw_labels(*size) for size in [*SIZES, LARGER]}


def _labels(logits: Tensor) -> Tensor:
    return LABELS[tuple(logits.shape[1:])].to(logits.device)


def _size(logits: Tensor) -> torch.Size:
    return LABELS[tuple(logits.shape[1:])].shape[1:]


def _resized(logits: Tensor) -> Tensor:
    return F.interpolate(logits, _size(logits), mode="bilinear")


def _plain_loss(logits: Tensor, reduction: str = "sum") -> Tensor:
    return F.cross_entropy(_resized(logits), _labels(logits), ignore_index=255, reduction=reduction)


def _plain_pointwise(kind: str) -> Callable[..., Tensor]:
    def plain(x: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
        mask = torch.einsum("mk,bkhw->bmhw", weight, hidden).unflatten(1, MASK)
        weights = reference.pointwise_spatial_energies(mask, kind).softmax(2)
        return torch.einsum("bij,bcj->bci", weights, x.flatten(2)).view_as(x)

    return plain


def _pointwise(kind: str) -> Callable[..., Tensor]:
    return lambda *inputs: ops.pointwise_spatial_attention(*inputs, MASK, kind)


def _attention_shapes(c: int, h: int, w: int) -> list[tuple[int, ...]]:
    return [(BATCH, h * w, c), (BATCH, h * w + 2, c), (BATCH, h * w + 2, c)]


def _map_shapes(c: int, h: int, w: int) -> list[tuple[int, ...]]:
    return [(BATCH, c, h, w)] * 3


def _mask_shapes(c: int, h: int, w: int) -> list[tuple[int, ...]]:
    return [(BATCH, c, h, w), (BATCH, 3, h, w), (MASK[0] * MASK[1], 3)]


def _logits_shape(c: int, h: int, w: int) -> list[tuple[int, ...]]:
    return [(BATCH, c, h, w)]


#: The function, its plain form, and the shapes of its inputs. Where energies grow with the channels they are
#: scaled: if one key had all the weight, there would be little to compare.
CASES: dict[str, tuple[Callable, Callable, Callable[[int, int, int], list[tuple[int, ...]]]]] = {
    "attention": (
        lambda q, k, v: ops.attention(q, k, v, scale=q.shape[2] ** -0.5),
        lambda q, k, v: reference.attention(q, k, v, q.shape[2] ** -0.5),
        _attention_shapes,
    ),
    # What it calls on a GPU for 16 bits.
    "attention, fused": (
        lambda q, k, v: fused_attention(q, k, v, q.shape[2] ** -0.5),
        lambda q, k, v: reference.attention(q, k, v, q.shape[2] ** -0.5),
        _attention_shapes,
    ),
    "criss_cross_attention": (
        lambda q, k, v: ops.criss_cross_attention(q * q.shape[1] ** -0.5, k, v),
        lambda q, k, v: reference.criss_cross_attention(q * q.shape[1] ** -0.5, k, v),
        _map_shapes,
    ),
    "pointwise_spatial_attention, collect": (
        _pointwise("collect"),
        _plain_pointwise("collect"),
        _mask_shapes,
    ),
    "pointwise_spatial_attention, distribute": (
        _pointwise("distribute"),
        _plain_pointwise("distribute"),
        _mask_shapes,
    ),
    "concatenation_attention": (
        ops.concatenation_attention,
        # In 16 bits some sums are exactly 0, where the gradient is that of a ReLU.
        lambda a, b, v: (a[:, :, None] + b[:, None, :]).relu() @ v / b.shape[1],
        lambda c, h, w: [(BATCH, h * w), (BATCH, h * w + 2), (BATCH, h * w + 2, c)],
    ),
    "upsampled_cross_entropy": (
        lambda logits: ops.upsampled_cross_entropy(logits, _labels(logits))[0],
        _plain_loss,
        _logits_shape,
    ),
    "upsampled_pixel_losses": (
        lambda logits: upsampled_pixel_losses(logits, _labels(logits)),
        lambda logits: _plain_loss(logits, "none").detach(),
        _logits_shape,
    ),
    "upsampled_argmax": (
        lambda logits: ops.upsampled_argmax(logits, _size(logits)),
        lambda logits: _resized(logits).argmax(1),
        _logits_shape,
    ),
    # With gradients it is PyTorch's; without, test_winograd_convolution.py has it.
    "winograd_convolution": (
        lambda x, w: ops.winograd_convolution(x, w, evaluated=evaluated_weights(w), padding=(1, 1)),
        lambda x, w: F.conv2d(x, w, padding=1),
        lambda c, h, w: [(BATCH, c, h, w), (3, c, 3, 3)],
    ),
    # What modules use beside them.
    "product": (
        lambda q, k: product(q, k),
        lambda q, k: q @ k.mT,
        lambda *size: _attention_shapes(*size)[:2],
    ),
    "energies": (energies, lambda q, k: q @ k.mT, lambda *size: _attention_shapes(*size)[:2]),
    "dot_product": (
        lambda q, k, v: dot_product(q, k, v, scale=1 / k.shape[1]),
        lambda q, k, v: q @ k.mT @ v / k.shape[1],
        _attention_shapes,
    ),
}
#: On a GPU, some versions of PyTorch have no form of these operators that repeats to the bit.
UNREPEATABLE = {"concatenation_attention": "cumsum"}
LOSSES = {"upsampled_cross_entropy", "upsampled_pixel_losses"}


def _out_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    if name == "upsampled_argmax":
        return torch.uint8
    return energy_dtype(dtype) if name in {"energies", *LOSSES} else dtype


def test_there_is_a_case_for_every_function():
    functions = {getattr(ops, name).__name__ for name in ops.__all__}
    assert functions and functions <= {name.split(",")[0] for name in CASES}


def _skip_what_a_gpu_has_no_kernel_for(name: str, dtype: torch.dtype, device: torch.device) -> None:
    if name == "attention, fused" and device.type == "cuda" and dtype.itemsize > 2:
        pytest.skip("a GPU has these kernels for 16 bits")


def _inputs(name: str, size: tuple[int, int, int], dtype: torch.dtype) -> list[Tensor]:
    """The case's inputs in a dtype, on the CPU, where all devices get them from."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)
        for shape in CASES[name][2](*size)
    ]


def _results(
    function: Callable,
    inputs: list[Tensor],
    slope: Tensor | None = None,
    forward: AbstractContextManager | None = None,
) -> list[Tensor]:
    """The output and, where it has any, the gradients of the inputs for a slope, or for the output's sum."""
    inputs = [t.detach().requires_grad_() for t in inputs]
    with forward or nullcontext():
        out = function(*inputs)
    if not out.requires_grad:
        return [out]
    if slope is None:
        return [out.detach(), *torch.autograd.grad(out.sum(), inputs)]  # a slope without memory of its own
    return [out.detach(), *torch.autograd.grad(out, inputs, slope.to(out))]


def _assert_near(got: list[Tensor], want: list[Tensor], tolerance: float) -> None:
    for a, b in zip(got, want, strict=True):
        a, b = a.cpu().double(), b.cpu().double()
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_equation_in_float64_and_the_cpu(name, size, dtype, device):
    _skip_what_a_gpu_has_no_kernel_for(name, dtype, device)
    function, plain, _ = CASES[name]
    narrow = _inputs(name, size, dtype)
    given = [t.to(device) for t in narrow]
    wide = [t.double() for t in narrow]
    slope = torch.randn(plain(*wide).shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    got, want = _results(function, given, slope), _results(plain, wide, slope)
    assert all(t.device == given[0].device for t in got)
    assert [t.dtype for t in got] == [_out_dtype(name, dtype), *[dtype] * len(got[1:])]
    tolerance = TOLERANCES[dtype][device.type != "cpu"]
    _assert_near(got, want, tolerance)
    for after, before in zip(given, narrow, strict=True):
        assert torch.equal(after.cpu(), before)  # nothing is done in place
    if device.type != "cpu":
        _assert_near(got, _results(function, narrow, slope), tolerance)


def _beside_nan(t: Tensor) -> Tensor:
    return torch.stack([t, torch.full_like(t, torch.nan)], dim=-1)[..., 0]


def _off_by_one(t: Tensor) -> Tensor:
    """At an address that is no multiple of 16 bytes, as in a slice of a larger tensor."""
    return torch.cat([t.new_full((1,), torch.nan), t.flatten()])[1:].view(t.shape)


def _last_dim_outside(t: Tensor) -> Tensor:
    """As a view of a feature map: strides grow from the first dimension to the last."""
    dims = tuple(reversed(range(t.dim())))
    return t.permute(dims).contiguous().permute(dims)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "one channel's numbers side by side": _last_dim_outside,
    "channels last": lambda t: t.movedim(1, -1).contiguous().movedim(-1, 1),
    "every other number": _beside_nan,
    "one entry for the whole batch": lambda t: t[:1].expand_as(t),
    "one number for a whole dimension": lambda t: t[..., :1].expand_as(t),
    "an odd address": _off_by_one,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", one_on_gpu([torch.bfloat16, torch.float32]), ids=str)
@pytest.mark.parametrize("name", CASES)
def test_strides_change_nothing(name, dtype, layout, device):
    _skip_what_a_gpu_has_no_kernel_for(name, dtype, device)
    if device.type == "cuda" and name.startswith("attention") and layout == "an odd address":
        pytest.skip("in a process of its own, below")
    function = CASES[name][0]
    for size in SIZES[-2:]:
        views = [LAYOUTS[layout](t.to(device)) for t in _inputs(name, size, dtype)]
        got = _results(function, views)
        want = _results(function, [t.clone(memory_format=torch.contiguous_format) for t in views])
        _assert_near(got, want, TOLERANCES[dtype][1])


_ODD_ADDRESS = """
import torch
from danseg.ops import attention
torch.manual_seed(0)
shape = 2, 300, 64
odd = [torch.randn(2 * 300 * 64 + 1, dtype=torch.bfloat16).cuda()[1:].view(shape) for _ in range(3)]
assert all(t.data_ptr() % 16 for t in odd)
results = []
for inputs in (odd, [t.clone() for t in odd]):
    inputs = [t.requires_grad_() for t in inputs]
    out = attention(*inputs, scale=0.125)
    results.append([out, *torch.autograd.grad(out.sum(), inputs)])
for got, want in zip(*results):
    torch.testing.assert_close(got, want, rtol=0.04, atol=0.04)
"""


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fused_kernels_take_an_odd_address():
    """A kernel that reads 16 bytes at such an address ends its process's use of the GPU."""
    done = subprocess.run([sys.executable, "-c", _ODD_ADDRESS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", sorted(set(CASES) - {"product"}))  # for it, its callers switch autocast off
def test_autocast_changes_nothing(name, dtype, narrow, device):
    _skip_what_a_gpu_has_no_kernel_for(name, dtype, device)
    function = CASES[name][0]
    inputs = [t.to(device) for t in _inputs(name, SIZES[-1], dtype)]
    got = _results(function, inputs, forward=torch.autocast(device.type, narrow))
    want = _results(function, inputs)
    assert [t.dtype for t in got] == [t.dtype for t in want]
    assert torch.equal(got[0], want[0])
    if device.type == "cuda" and name in UNREPEATABLE:
        _assert_near(got, want, TOLERANCES[dtype][1])
    else:
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_repeats_to_the_bit_when_asked_or_pytorch_refuses(name, dtype, device):
    _skip_what_a_gpu_has_no_kernel_for(name, dtype, device)
    function = CASES[name][0]
    inputs = [t.to(device) for t in _inputs(name, LARGER, dtype)]
    with deterministic(refused=UNREPEATABLE.get(name) if device.type == "cuda" else None):
        first, *others = (_results(function, inputs) for _ in range(3))
        for other in others:
            assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_compiles_in_one_piece(name, device):
    dtype = torch.bfloat16 if name == "attention, fused" and device.type == "cuda" else torch.float32
    function = CASES[name][0]
    inputs = [t.to(device) for t in _inputs(name, SIZES[3], dtype)]
    # Without a GPU, generating and building code would take ten seconds a case.
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=False, backend=backend)
    _assert_near(_results(compiled, inputs), _results(function, inputs), TOLERANCES[dtype][1])
    torch._dynamo.reset()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_cpu_waits_for_the_gpu_only_where_it_has_to():
    waiting = set()
    for name, (function, *_) in CASES.items():
        for dtype in (torch.float16, torch.bfloat16) if "fused" in name else (torch.float32, torch.bfloat16):
            inputs = [t.cuda() for t in _inputs(name, SIZES[-1], dtype)]
            _results(function, inputs)  # libraries start at the first call
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                _results(function, inputs)
            except RuntimeError as error:
                assert "synchronizing" in str(error)
                waiting.add(name)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert waiting == LOSSES  # which have to see whether a label is no class
