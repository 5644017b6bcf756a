"""danseg.ops.winograd_convolution against PyTorch's convolution in float64: rounding, memory, compilers."""

import sys

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from danseg.engine.measuring import extra_peak, in_subprocess
from danseg.ops import winograd_convolution
from danseg.ops.winograd_convolution import evaluated_weights

MODULE = sys.modules["danseg.ops.winograd_convolution"]

#: Batch, channels, height, width, output channels, padding, dilation.
CASES = [
    (2, 5, 8, 12, 7, (1, 1), (1, 1)),  # whole tiles
    (1, 5, 9, 13, 7, (1, 1), (1, 1)),  # odd sizes
    (2, 6, 10, 8, 5, (2, 2), (2, 2)),
    (1, 4, 17, 3, 3, (4, 4), (4, 4)),  # fewer columns than grids
    (1, 4, 7, 9, 3, (0, 2), (1, 3)),
    (1, 2, 6, 7, 3, (0, 0), (1, 1)),  # smaller than the input
    (1, 2, 5, 4, 3, (3, 5), (1, 2)),  # larger
    (1, 3, 1, 1, 2, (1, 1), (1, 1)),
]


def _drawn(batch, channels, height, width, out_channels, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, channels, height, width), (out_channels, channels, 3, 3), (out_channels,)
    return [torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize("bytes_of_a_block", [2**20, 3000, 1])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_convolution_in_float64(case, bytes_of_a_block, monkeypatch):
    # One block, blocks of some strips, and of one strip of one tile.
    monkeypatch.setattr(MODULE, "_BLOCK_BYTES", bytes_of_a_block)
    monkeypatch.setattr(MODULE, "_FEWEST_TILES", 1)
    monkeypatch.setattr(MODULE, "cached_bytes", lambda _: bytes_of_a_block)
    *sizes, padding, dilation = case
    x, weight, bias = _drawn(*sizes)
    before = x.clone()
    for b in (bias, None):
        got = winograd_convolution(
            x, weight, b, evaluated=evaluated_weights(weight), padding=padding, dilation=dilation
        )
        expected = F.conv2d(x, weight, b, padding=padding, dilation=dilation)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-11)
    assert torch.equal(x, before)
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [16, 512])
@pytest.mark.parametrize("positive", [False, True])
def test_rounding_stays_within_its_bound(channels, positive):
    x, weight, bias = _drawn(1, channels, 24, 24, 16, torch.float32)
    x = x.relu() if positive else x
    got = winograd_convolution(x, weight, bias, evaluated=evaluated_weights(weight), padding=(1, 1))
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert (got - exact).abs().max() <= 5e-6 * exact.abs().max()


def test_an_image_does_not_depend_on_its_batch_mates_nor_on_strides():
    x, weight, bias = _drawn(3, 8, 11, 9, 4, torch.float32)
    evaluated = evaluated_weights(weight)

    def convolved(x):
        return winograd_convolution(x, weight, bias, evaluated=evaluated, padding=(1, 1))

    whole = convolved(x)
    assert torch.equal(whole[1:2], convolved(x[1:2]))
    strided = torch.stack([x, x], dim=-1)[..., 0].contiguous(memory_format=torch.channels_last)
    assert torch.equal(whole, convolved(strided))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(whole, convolved(x))


def test_weights_are_evaluated_where_they_are_asked_for():
    _, weight, _ = _drawn(1, 5, 1, 1, 4, torch.float32)
    want = evaluated_weights(weight)
    as_read = weight.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    room = torch.full((36, 4, 5), torch.nan)
    got = evaluated_weights(as_read, out=room)
    assert got.data_ptr() == room.data_ptr()
    torch.testing.assert_close(room, want)


def test_gradients_are_those_of_the_convolution():
    x, weight, bias = (t.requires_grad_() for t in _drawn(1, 3, 6, 5, 4))
    out = winograd_convolution(x, weight, bias, evaluated=evaluated_weights(weight), padding=(1, 1))
    expected = F.conv2d(x, weight, bias, padding=1)
    slope = torch.randn_like(out)
    got, want = (torch.autograd.grad(y, (x, weight, bias), slope) for y in (out, expected))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_file_has_the_plain_convolution():
    x, weight, bias = _drawn(1, 3, 6, 5, 4, torch.float32)
    evaluated = evaluated_weights(weight)

    class Layer(torch.nn.Module):
        def forward(self, x):
            return winograd_convolution(x, weight, bias, evaluated=evaluated, padding=(1, 1))

    traced = torch.jit.trace(Layer(), x)
    assert "aten::_convolution" in str(traced.graph)
    assert "danseg::" not in str(traced.graph)
    assert torch.equal(traced(x), F.conv2d(x, weight, bias, padding=1))


@pytest.mark.slow
def test_compilers_see_one_call():
    x, weight, bias = _drawn(1, 3, 6, 5, 4, torch.float32)
    evaluated = evaluated_weights(weight)

    def convolved(x):
        return winograd_convolution(x, weight, bias, evaluated=evaluated, padding=(1, 1))

    compiled = torch.compile(convolved, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), convolved(x))


def test_operations_are_counted_as_done():
    x, weight, _ = _drawn(1, 64, 16, 16, 64, torch.float32)
    with FlopCounterMode(display=False) as counter:
        winograd_convolution(x, weight, evaluated=evaluated_weights(weight), padding=(1, 1))
    transforms = 2 * 16 * 36 * (36 * 64 + 16 * 64)
    assert counter.get_flop_counts()["Global"][torch.ops.danseg.winograd_forward] == (
        2 * 16 * 36 * 64 * 64 + transforms
    )


def _peak(size: int) -> int:
    x, weight, _ = _drawn(1, 64, size, size, 64, torch.float32)
    evaluated = evaluated_weights(weight)
    x = x.contiguous(memory_format=torch.channels_last)
    small = x[:, :, :8, :8]
    winograd_convolution(small, weight, evaluated=evaluated, padding=(1, 1))
    return extra_peak(lambda: winograd_convolution(x, weight, evaluated=evaluated, padding=(1, 1)), x.device)


def test_memory_is_that_of_a_block_beside_input_and_output():
    size = 512
    operands = (
        2 * 64 * size * size * 4
    )  # a padded copy, and the output; all tiles would take five times as much
    assert in_subprocess(_peak, size) < operands + 48 * 2**20 + 36 * 2**20


@pytest.mark.parametrize(
    ("x", "weight", "evaluated", "words"),
    [
        ((1, 3, 5, 5), (4, 2, 3, 3), (36, 4, 2), "takes x"),
        ((3, 5, 5), (4, 3, 3, 3), (36, 4, 3), "takes x"),
        ((1, 3, 5, 5), (4, 3, 3, 3), (36, 3, 4), "evaluated_weights"),
        ((1, 3, 5, 5), (4, 3, 1, 1), (36, 4, 3), "takes x"),
    ],
)
def test_other_shapes_are_refused(x, weight, evaluated, words):
    with pytest.raises(ValueError, match=words):
        winograd_convolution(torch.zeros(x), torch.zeros(weight), evaluated=torch.zeros(evaluated))


def test_other_weights_are_refused():
    for weight in (torch.zeros(4, 3, 5, 5), torch.zeros(4, 3, 3), torch.zeros(4, 3, 3, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"\(K, C, 3, 3\)"):
            evaluated_weights(weight)
