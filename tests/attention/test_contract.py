"""What every attention module promises, checked over all of ``danseg.attention.__all__``.

What only a module's author knows stands in its own test file, ``tests/attention/test_STEM.py``:
``PARAMETER_NAMES`` (an interface: checkpoints hold them) and, where there are any, ``ZERO_GRADIENT``,
the parameters whose true gradient is zero, ``NEEDED``, what a switch that is on needs beside itself,
and ``ROUNDING``, how many times more than other modules it magnifies the rounding of 16-bit numbers.
"""

import copy
import inspect
import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import func, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cpu_alone import cpu_alone, one_on_gpu
from danseg.attention.non_local import MODES
from danseg.attention.parts.views import ShowsAttention
from drawn_attention import IN_CHANNELS, MODE, MODULES, VARIANTS, call, feature_map, make, takers, with_maps
from own_test import own_test


def test_there_are_modules():
    assert len(MODULES) >= 3


every_module = pytest.mark.parametrize("name", sorted(MODULES))


@every_module
def test_signature(name):
    parameters = list(inspect.signature(MODULES[name].__init__).parameters.values())[1:]
    assert parameters[0].name == "in_channels"
    assert all(p.default is not inspect.Parameter.empty for p in parameters[1:])
    assert all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters)
    with pytest.raises(ValueError, match="0"):
        MODULES[name](0)


@every_module
def test_docstring_names_its_paper(name):
    doc = MODULES[name].__doc__
    assert re.search(r'Paper:\s[^"]+"[^"]+",\s[^.]*?(arXiv\s\d{4}\.\d{4,5}|no arXiv id)', doc)
    assert re.search(r"Shapes: ``\(B, C, [A-Z, ]+\)``", doc)


@every_module
def test_docstring_has_one_equation_of_the_output(name):
    lines = [line.strip() for line in MODULES[name].__doc__.splitlines()]
    assert len([line for line in lines if re.match(r"out\S* = ", line)]) == 1


@every_module
def test_parameter_names_are_frozen(name):
    assert [n for n, _ in make(name, "cpu").named_parameters()] == own_test(MODULES[name]).PARAMETER_NAMES[
        name
    ]


@every_module
@pytest.mark.parametrize("in_channels", [cpu_alone(1), 3, IN_CHANNELS])
def test_keeps_shape_and_dtype_and_leaves_its_input_alone(name, in_channels, device):
    x = feature_map(name, device, in_channels=in_channels)
    kept = x.clone()
    try:
        module = make(name, device, in_channels=in_channels)
    except ValueError as error:  # allowed only for modules that divide the channels into equal parts
        assert in_channels < IN_CHANNELS
        assert re.search(rf"in_channels.*divisible by .*got {in_channels}", str(error))
        return
    out = module(x)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert torch.equal(x, kept)


@every_module
def test_is_not_the_identity(name, device):
    x = feature_map(name, device)
    assert not torch.allclose(make(name, device)(x), x, atol=1e-2)


@every_module
def test_an_image_does_not_see_its_batch_mates(name, device):
    module, x = make(name, device, torch.float64), feature_map(name, device, torch.float64)
    torch.testing.assert_close(module(x)[1:], module(x[1:]), rtol=1e-10, atol=1e-12)


@every_module
def test_gradient_reaches_every_parameter(name, device):
    module, x = (
        make(name, device, torch.float64).train(),
        feature_map(name, device, torch.float64).requires_grad_(),
    )
    zero = getattr(own_test(MODULES[name]), "ZERO_GRADIENT", {}).get(name, [])
    module(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert not [n for n, parameter in module.named_parameters() if parameter.grad is None]
    sizes = {n: parameter.grad.abs().max().item() for n, parameter in module.named_parameters()}
    vanishing = max(sizes.values()) * 1e-9
    assert [n for n, size in sizes.items() if size < vanishing] == zero


@every_module
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_precisions_agree_with_float64(name, dtype, tolerance, device):
    module = make(name, device, dtype)
    x = feature_map(name, device, dtype)
    wide = copy.deepcopy(module).double()(x.double())
    out = module(x)
    assert out.dtype == dtype
    assert (out.double() - wide).abs().max() / wide.abs().max() < tolerance


every_variant = pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=str)
variants_and_one_on_gpu = pytest.mark.parametrize(("name", "arguments"), one_on_gpu(VARIANTS, MODE), ids=str)


def test_there_are_variants():
    assert {name for name, _ in VARIANTS} == set(MODULES)
    assert {arguments["mode"] for name, arguments in VARIANTS if name == "NonLocal3d"} == set(MODES)


@variants_and_one_on_gpu
@pytest.mark.parametrize(
    ("training", "way"),
    [
        (False, "cast"),
        cpu_alone(False, "autocast"),
        cpu_alone(False, "autocast after a convolution"),
        cpu_alone(True, "cast"),
        cpu_alone(True, "autocast"),
        (True, "autocast after a convolution"),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 3e-2), (torch.float16, 5e-3)])
def test_every_mode_trains_in_16_bits(name, arguments, training, way, dtype, tolerance, device):
    module = make(name, device, dtype if way == "cast" else torch.float32, **arguments).train(training)
    exact = copy.deepcopy(module).double()
    x = feature_map(name, device, torch.float32 if way == "autocast" else dtype).requires_grad_()
    with torch.autocast(device.type, dtype, enabled=way != "cast"):
        out = module(x)
    assert out.dtype == x.dtype
    assert out.isfinite().all()
    out.float().square().mean().backward()
    assert x.grad.isfinite().all()
    assert not [n for n, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    if not training:  # batch statistics of a few almost equal numbers magnify rounding without limit
        want = exact(x.detach().double())
        magnified = getattr(own_test(MODULES[name]), "ROUNDING", 1)
        assert (out.double() - want).abs().max() / want.abs().max() < tolerance * magnified


@variants_and_one_on_gpu
@pytest.mark.parametrize("way", [cpu_alone("cast"), cpu_alone("autocast"), "autocast after a convolution"])
def test_maps_are_as_wide_as_they_say_in_16_bits(name, arguments, way, device):
    module = make(name, device, torch.bfloat16 if way == "cast" else torch.float32, **arguments)
    x = feature_map(name, device, torch.float32 if way == "autocast" else torch.bfloat16)
    for method in with_maps(name, arguments):
        if method == "forward":
            continue
        with torch.autocast(device.type, torch.bfloat16, enabled=way != "cast"):
            found = call(module, method, x)
        assert found.isfinite().all()
        says = " ".join((getattr(MODULES[name], method).__doc__ or "").split())
        if "at least float32" in says:
            assert found.dtype == torch.float32


def gradient(function: Callable, x: torch.Tensor, create_graph: bool = False) -> torch.Tensor:
    x = x if create_graph else x.detach().clone().requires_grad_()
    [grad] = torch.autograd.grad(function(x).square().sum(), x, create_graph=create_graph)
    return grad


def tangent(function: Callable, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (function(x + 1e-6 * v) - function(x - 1e-6 * v)) / 2e-6


#: What PyTorch computes, and what it should be by means that need no derivative or only the first one.
TRANSFORMS: dict[str, tuple[Callable, Callable]] = {
    "grad": (lambda f, x, v: func.grad(lambda y: f(y).square().sum())(x), lambda f, x, v: gradient(f, x)),
    "vmap": (lambda f, x, v: func.vmap(f)(torch.stack([x, v])), lambda f, x, v: torch.stack([f(x), f(v)])),
    "jvp": (lambda f, x, v: func.jvp(f, (x,), (v,))[1], tangent),
    "hessian vector product": (
        lambda f, x, v: torch.autograd.grad(gradient(f, y := x.clone().requires_grad_(), True), y, v)[0],
        lambda f, x, v: tangent(lambda y: gradient(f, y), x, v),
    ),
    "jvp of grad": (
        lambda f, x, v: func.jvp(func.grad(lambda y: f(y).square().sum()), (x,), (v,))[1],
        lambda f, x, v: tangent(lambda y: gradient(f, y), x, v),
    ),
}


def one_channel_norm(device: torch.device) -> nn.Module:
    """What PyTorch cannot do under vmap on a GPU: the dimension of vmap is moved beside the channels.

    For a single channel that copies nothing, and leaves cuDNN an input that is not contiguous.
    """
    return nn.BatchNorm2d(1, device=device, dtype=torch.float64).eval()


@variants_and_one_on_gpu
@pytest.mark.parametrize(
    "transform", [name if name in ("grad", "vmap", "jvp") else cpu_alone(name) for name in TRANSFORMS]
)
def test_derivatives_are_right_or_refused(name, arguments, transform, device):
    module = make(name, device, torch.float64, **arguments)
    got, want = TRANSFORMS[transform]
    x = feature_map(name, device, torch.float64) * 0.4  # no map is so peaked that it has no slope
    v = feature_map(name, device, torch.float64).flip(0).sin()
    for method in with_maps(name, arguments):

        def function(x, method=method):
            return call(module, method, x)

        try:
            found = got(function, x, v)
        except RuntimeError as error:
            if transform == "vmap" and device.type == "cuda" and "is_contiguous" in str(error):
                with pytest.raises(RuntimeError, match="input->is_contiguous"):
                    func.vmap(one_channel_norm(device))(torch.stack([x, v])[:, :, :1])
                continue
            assert isinstance(error, NotImplementedError) and transform not in ("grad", "vmap"), error
            assert re.match(r"danseg\.ops\.\w+ .*use the plain form, danseg\.ops\.reference\.\w+", str(error))
            continue
        wanted = want(function, x, v)
        assert method != "forward" or wanted.abs().max() > 0  # a map behind a ReLU may be zero
        # A tangent's steps are 1e-6 wide, so that it is as rough as the rounding of the values over 1e-6.
        rough = 1e-9 * function(x).abs().max().item()
        atol = 1e-6 * wanted.abs().max().item() + rough + 1e-12
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=atol)


@every_module
def test_gradients_of_parameters_by_functional_call(name, device):
    module, x = make(name, device, torch.float64), feature_map(name, device, torch.float64)
    parameters = dict(module.named_parameters())
    found = func.grad(lambda given: func.functional_call(module, given, (x,)).square().sum())(parameters)
    wanted = torch.autograd.grad(module(x).square().sum(), parameters.values())
    torch.testing.assert_close(list(found.values()), list(wanted))


@every_module
def test_an_empty_batch_stays_empty(name, device):
    x = feature_map(name, device)[:0].requires_grad_()
    out = make(name, device)(x)
    assert out.shape == x.shape
    out.sum().backward()
    assert x.grad.shape == x.shape


# Without softmax, PSANet's sums are not means: they are as large as there are positions.
BOUNDED = [(name, arguments) for name, arguments in VARIANTS if arguments.get("psa_softmax", True)]


@pytest.mark.parametrize(("name", "arguments"), one_on_gpu(BOUNDED, MODE), ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_activations_do_not_overflow(name, arguments, dtype, device):
    size = {1: (1024,), 2: (32, 32), 3: (1, 32, 32)}[getattr(MODULES[name], "dims", 2)]
    if arguments.get("compact"):
        arguments = {**arguments, "mask_size": (16, 16)}
    x = torch.full(
        (1, IN_CHANNELS, *size), 16.0, dtype=dtype, device=device
    )  # 1024 positions: energies of 262144
    assert make(name, device, dtype, **arguments)(x).isfinite().all()


@every_module
def test_state_dict_round_trip_and_deepcopy(name, device):
    module, x = make(name, device), feature_map(name, device)
    other = MODULES[name](IN_CHANNELS).to(device).eval()
    other.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(module(x), other(x))
    assert torch.equal(module(x), copy.deepcopy(module)(x))


@every_module
def test_loads_the_authors_one_element_scales(name):
    module = make(name, "cpu")
    state = {n: v.reshape(1) if v.dim() == 0 else v for n, v in module.state_dict().items()}
    MODULES[name](IN_CHANNELS).load_state_dict(state, strict=True)


WRONG = {
    "twice the channels": lambda x: torch.cat([x, x], dim=1),
    "half the channels": lambda x: x[:, : IN_CHANNELS // 2],
    "one channel": lambda x: x[:, :1],
    "no batch": lambda x: x[0],
    "one dimension more": lambda x: x[..., None],
    "two dimensions": lambda x: x.flatten(1),
    "no positions": lambda x: x[..., :0],
    "integers": lambda x: x.long(),
    "complex": lambda x: x + 0j,
}


@every_module
@pytest.mark.parametrize("wrong", WRONG)
def test_an_input_that_it_was_not_made_for_is_named(name, wrong):
    module, x = make(name, "cpu"), WRONG[wrong](feature_map(name, "cpu"))
    wanted = rf"{name} was made for {IN_CHANNELS} channels.*got {re.escape(str(tuple(x.shape)))} of {x.dtype}"
    for method in takers(name):
        with pytest.raises(ValueError, match=wanted + (r".*x\[None\]" if wrong == "no batch" else "")):
            call(module, method, x)


@every_module
@pytest.mark.parametrize("side", [1, cpu_alone(2), cpu_alone(None)])
def test_training_on_one_image_works_or_names_the_fix(name, side, device):
    x = feature_map(name, device, batch=1)
    if side is not None:
        x = x[(..., *[slice(side)] * (x.dim() - 2))]
    module = make(name, device)
    assert module(x).shape == x.shape
    try:
        assert module.train()(x).shape == x.shape
    except ValueError as error:
        assert re.search("at least 2 images, got 1; raise the batch size.*SyncBN", str(error))


class BytesMade(TorchDispatchMode):
    """Sums up the sizes of all tensors that operators make, whether they are kept or not."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = (leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
        self.total += sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        return out


Work = Callable[[nn.Module, torch.Tensor], Callable[[], object]]


def a_training_step(module: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    return lambda: module(x).sum().backward()


def growth(make: Callable[[int], nn.Module], dims: int = 2, work: Work = a_training_step) -> float:
    """The exponent e when some work makes N^e bytes of tensors for N positions.

    Nothing is computed: fake tensors know their sizes alone. What an operator of danseg's needs inside is
    left out, a block of the map; tests/ops measures it. What ``work`` does before it returns is not counted.
    """
    totals = []
    with FakeTensorMode():
        for side in {1: (2**16, 2**18), 2: (2**8, 2**9), 3: (2**6, 2**7)}[dims]:
            size = (4, side, side) if dims == 3 else (side,) * dims
            module, x = make(16), torch.empty(2, 16, *size, requires_grad=True)
            counted = work(module, x)
            with BytesMade() as made:
                counted()
            totals.append(made.total)
    return math.log(totals[1] / totals[0], 4)


class Plain(nn.Module):
    """Attention over a map of all pairs."""

    def forward(self, x):
        x = x.flatten(2)
        return x @ (x.transpose(1, 2) @ x).softmax(1)


class PerColumn(nn.Module):
    """Attention within columns: H entries for each of H x W positions."""

    def forward(self, x):
        x = x.permute(0, 3, 1, 2)  # (B, W, C, H)
        return x @ (x.transpose(2, 3) @ x).softmax(2)


def test_growth_is_that_of_the_largest_tensor():
    assert growth(lambda channels: Plain()) == pytest.approx(2, abs=0.02)
    assert growth(lambda channels: PerColumn()) == pytest.approx(1.5, abs=0.1)
    assert growth(lambda channels: nn.Conv2d(channels, channels, 1)) == pytest.approx(1, abs=0.01)


WITH_MODES = [
    (name, arguments)
    for name, module in sorted(MODULES.items())
    for arguments in (
        [dict(mode=mode) for mode in MODES] if "mode" in inspect.signature(module).parameters else [{}]
    )
]


@pytest.mark.parametrize(("name", "arguments"), WITH_MODES, ids=str)
def test_nothing_grows_faster_than_the_number_of_positions(name, arguments):
    dims = getattr(MODULES[name], "dims", 2)
    assert growth(lambda channels: MODULES[name](channels, **arguments), dims) == pytest.approx(1, abs=0.01)


SHOWN = [(name, arguments) for name, arguments in WITH_MODES if issubclass(MODULES[name], ShowsAttention)]


def test_there_are_modules_that_show_positions():
    assert {"PositionAttention", "CrissCrossAttention", "InterlacedSparseAttention"} <= {n for n, _ in SHOWN}


@pytest.mark.parametrize(("name", "arguments"), SHOWN, ids=str)
def test_showing_costs_rows_and_never_the_map_of_all_pairs(name, arguments):
    dims = getattr(MODULES[name], "dims", 2)

    def made(channels: int) -> nn.Module:
        return MODULES[name](channels, **arguments)

    for number, view in enumerate(made(16).attention_views()):
        if view.kind != "position":
            continue

        def begin(module: nn.Module, x: torch.Tensor, number: int = number) -> Callable:
            return lambda: module.attention_views()[number].begin(x)

        def ask(module: nn.Module, x: torch.Tensor, begin: Callable = begin) -> Callable:
            begun = begin(module, x)()
            return lambda: begun([(0,) * dims, (1,) * dims])

        # Criss-cross attention keeps the earlier recurrences' crosses, H + W weights a position.
        most = 1.5 if (name, view.name) == ("CrissCrossAttention", "") else 1
        for work in (begin, ask):
            assert growth(made, dims, work) < most + 0.02, (view.name, work.__name__)
