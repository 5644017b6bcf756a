"""The split of wide values into heads against the equation, by the kernels that PyTorch chooses.

On a CPU, PyTorch has kernels behind the same function, so that the split is tested there, too.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from danseg.ops import attention, reference
from danseg.ops.fused_attention import fused_attention, fused_kernels_take

# Widths of queries and values: DANet's, Non-local's, narrow, odd, values that do not split evenly.
WIDTHS = [(64, 512), (256, 256), (8, 64), (3, 5), (1, 1), (64, 520), (250, 30), (200, 700)]
TOLERANCES = {torch.float64: 1e-12, torch.float16: 5e-3, torch.bfloat16: 3e-2}


def _inputs(batch, n, m, c, d, dtype, device):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(*shape, dtype=torch.float64, generator=generator).to(device, dtype).requires_grad_()
        for shape in ((batch, n, c), (batch, m, c), (batch, m, d))
    ]


def _differences(function, inputs, scale):
    """Of the output and the gradients from the equation in float64, relative to their norms.

    A single key has a weight of 1 whatever the energy: gradients of queries and keys are 0, and what is left
    is the rounding of a difference of equal numbers, each as large as the product of values and slopes.
    """
    out = function(*inputs, scale)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    expected = reference.attention(*wide, scale)
    slope = torch.randn(out.shape, dtype=torch.float64).to(out)
    grads = torch.autograd.grad(out, inputs, slope)
    expected_grads = torch.autograd.grad(expected, wide, slope.double())
    assert all(grad.dtype == given.dtype for grad, given in zip(grads, inputs, strict=True))
    scales = [want.norm() for want in (expected, *expected_grads)]
    if inputs[1].shape[1] == 1:
        terms = (slope.double() * expected).norm(dim=2, keepdim=True) * scale  # (B, N, 1)
        scales[1:3] = (terms * wide[1]).norm(), (terms * wide[0]).norm()
    pairs = zip((out, *grads), (expected, *expected_grads), scales, strict=True)
    return [((got.double() - want).norm() / size).item() for got, want, size in pairs]


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_equals_the_equation_with_gradients(widths, dtype, device):
    if device.type == "cuda" and dtype == torch.float64:
        pytest.skip("the kernels are for 16 bits")
    torch.manual_seed(0)
    inputs = _inputs(2, 50, 37, *widths, dtype, device)
    differences = _differences(fused_attention, inputs, widths[0] ** -0.5)
    assert max(differences) < TOLERANCES[dtype]


@pytest.mark.parametrize("positions", [(1, 1), (1, 900), (900, 1), (1500, 1111), (4096, 4096), (2048, 3)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_any_number_of_positions_on_a_gpu(positions, dtype, device):
    """Kernels take over from one another at sizes that PyTorch knows; none may be wrong at any."""
    if device.type == "cpu":
        pytest.skip("the kernels are a GPU's")
    torch.manual_seed(0)
    inputs = _inputs(2, *positions, 64, 512, dtype, device)
    assert (
        max(_differences(lambda q, k, v, s: attention(q, k, v, scale=s), inputs, 0.125)) < TOLERANCES[dtype]
    )


def test_expanded_and_strided_inputs(device):
    torch.manual_seed(0)
    dtype = torch.float64 if device.type == "cpu" else torch.bfloat16
    query, key, value = (t.detach() for t in _inputs(1, 40, 40, 16, 24, dtype, device))
    views = query[:, ::2].expand(3, 20, 16), key.mT.contiguous().mT.expand(3, 40, 16), value.expand(3, 40, 24)
    out = fused_attention(*views, 0.25)
    expected = reference.attention(*(view.double() for view in views), 0.25)
    assert (out.double() - expected).norm() / expected.norm() < TOLERANCES[dtype]


@pytest.mark.parametrize("by_channel", [True, False])
def test_values_given_as_a_feature_map_come_back_as_one(by_channel, device):
    dtype = torch.float64 if device.type == "cpu" else torch.bfloat16
    query, key, value = (t.detach() for t in _inputs(2, 12, 13, 8, 264, dtype, device))
    if by_channel:
        value = value.mT.contiguous().mT
    out = fused_attention(query, key, value, 1.0)
    assert (out.mT if by_channel else out).is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("widths", [(64, 512), (256, 256)], ids=str)
def test_gradients_repeat_to_the_bit_when_asked(widths, dtype, device):
    positions = 64 if device.type == "cpu" else 4096
    inputs = _inputs(1, positions, positions, *widths, dtype, device)
    slope = torch.randn_like(inputs[2])
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (torch.autograd.grad(attention(*inputs), inputs, slope) for _ in range(4))
    finally:
        torch.use_deterministic_algorithms(False)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_compiles_as_a_whole(device):
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    inputs = _inputs(1, 40, 40, 16, 24, dtype, device)
    compiled = torch.compile(
        lambda *t: fused_attention(*t, 0.25).square(), fullgraph=True, backend="aot_eager"
    )
    want = torch.autograd.grad(fused_attention(*inputs, 0.25).square().sum(), inputs)
    got = torch.autograd.grad(compiled(*inputs).sum(), inputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_autocast_to_the_other_16_bits_changes_nothing(device):
    inputs = [t.detach() for t in _inputs(1, 40, 40, 16, 24, torch.bfloat16, device)]
    with torch.autocast(device.type, torch.float16):
        under_autocast = fused_attention(*inputs, 0.25)
    assert under_autocast.dtype == torch.bfloat16
    assert torch.equal(under_autocast, fused_attention(*inputs, 0.25))


def test_it_is_for_16_bits_on_a_gpu():
    on_meta = [torch.empty(1, 8, 64, device="meta", dtype=t) for t in (torch.bfloat16, torch.float32)]
    assert not any(fused_kernels_take(t, t) for t in on_meta)
    assert not fused_kernels_take(*[torch.zeros(1, 8, 64, dtype=torch.bfloat16)] * 2)


@pytest.mark.parametrize(
    ("positions", "training", "cudnn"), [(64, False, False), (64, True, True), (1 << 15, False, True)]
)
def test_cudnn_is_asked_where_its_plan_pays(positions, training, cudnn, monkeypatch):
    """In training, and for maps of whole frames. Elsewhere each new size costs more than it saves."""
    allowed = []

    def recorded(query, key, value, scale):
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return value

    monkeypatch.setattr(sys.modules["danseg.ops.fused_attention"], "scaled_dot_product_attention", recorded)
    query = torch.zeros(1, positions, 8, requires_grad=training)
    fused_attention(query, query, query, 1.0)
    with torch.no_grad():
        fused_attention(query, query, query, 1.0)
    assert allowed == [cudnn, cudnn and not training]


def test_a_gpu_takes_queries_of_256_channels_at_most(device):
    query, value = (torch.zeros(1, 8, c, dtype=torch.bfloat16, device=device) for c in (256, 512))
    on_gpu = device.type == "cuda"
    assert fused_kernels_take(query, value) == on_gpu
    assert not fused_kernels_take(value, query)
    assert not fused_kernels_take(query.float(), value.float())


def test_threads_put_back_the_choice_of_kernels(monkeypatch):
    """The choice is the process's: the second thread must not begin before the first has put it back."""
    module = sys.modules["danseg.ops.fused_attention"]
    kernels = torch.backends.cuda
    before = kernels.flash_sdp_enabled(), kernels.math_sdp_enabled()
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    seen = []

    def slow(query, key, value, scale):
        seen.append(kernels.math_sdp_enabled())
        if first_is_in.is_set():
            second_is_in.set()
            first_is_out.wait(0.2)
        else:
            first_is_in.set()
            second_is_in.wait(0.2)
        return value

    monkeypatch.setattr(module, "scaled_dot_product_attention", slow)
    inputs = _inputs(1, 4, 4, 8, 8, torch.float32, "cpu")

    def call(wait: threading.Event | None):
        if wait is not None:
            assert wait.wait(10)
        fused_attention(*inputs, 1.0)
        if wait is None:
            first_is_out.set()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(call, [None, first_is_in]))
    assert seen == [False, False]
    assert (kernels.flash_sdp_enabled(), kernels.math_sdp_enabled()) == before
