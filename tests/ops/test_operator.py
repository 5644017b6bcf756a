"""Every function of danseg.ops under every transform of PyTorch: the value of the plain form, or an error."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, func
from torch.autograd import forward_ad, functional
from torch.nn import functional as F

import danseg
import danseg.ops
from danseg.ops import reference
from danseg.ops.operator import differentiated
from danseg.ops.products import dot_product, energies, product
from danseg.ops.winograd_convolution import evaluated_weights

GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


LABELS = torch.randint(0, 3, (1, 4, 6), generator=GENERATOR)


def _plain_loss(logits: Tensor) -> Tensor:
    upsampled = F.interpolate(logits, LABELS.shape[1:], mode="bilinear")
    return F.cross_entropy(upsampled, LABELS, reduction="sum")


def _loss(logits: Tensor) -> Tensor:
    return danseg.ops.upsampled_cross_entropy(logits, LABELS.to(logits.device))[0]


def _plain_argmax(logits: Tensor) -> Tensor:
    return F.interpolate(logits, (4, 6), mode="bilinear").argmax(1)


def _plain_pointwise(x: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    mask = torch.einsum("mk,bkhw->bmhw", weight, hidden).unflatten(1, (3, 5))
    map_ = reference.pointwise_spatial_energies(mask, "collect").softmax(2)
    return torch.einsum("bij,bcj->bci", map_, x.flatten(2)).view_as(x)


#: The function, the plain form, and inputs.
CASES: dict[str, tuple[Callable, Callable, tuple[Tensor, ...]]] = {
    "attention": (
        danseg.ops.attention,
        lambda query, key, value: (query @ key.mT).softmax(2) @ value,
        (draw(1, 4, 2), draw(1, 3, 2), draw(1, 3, 2)),
    ),
    "criss_cross_attention": (
        danseg.ops.criss_cross_attention,
        reference.criss_cross_attention,
        (draw(1, 2, 2, 3), draw(1, 2, 2, 3), draw(1, 2, 2, 3)),
    ),
    "pointwise_spatial_attention": (
        lambda *inputs: danseg.ops.pointwise_spatial_attention(*inputs, (3, 5), "collect"),
        _plain_pointwise,
        (draw(1, 2, 2, 3), draw(1, 2, 2, 3), draw(15, 2)),
    ),
    "concatenation_attention": (
        danseg.ops.concatenation_attention,
        reference.concatenation,
        (draw(1, 4), draw(1, 3), draw(1, 3, 2)),
    ),
    "upsampled_cross_entropy": (
        _loss,
        _plain_loss,
        (draw(1, 3, 2, 3),),
    ),
    "upsampled_argmax": (
        lambda logits: danseg.ops.upsampled_argmax(logits, (4, 6)),
        _plain_argmax,
        (draw(1, 3, 2, 3),),
    ),
    "winograd_convolution": (
        lambda x, weight: danseg.ops.winograd_convolution(
            x, weight, evaluated=evaluated_weights(weight.detach()), padding=(1, 1)
        ),
        lambda x, weight: F.conv2d(x, weight, padding=1),
        (draw(1, 2, 2, 3), draw(3, 2, 3, 3)),
    ),
    # What modules use beside them; the first one has a path for float32 that PyTorch cannot differentiate.
    "product": (product, lambda a, b: a @ b.mT, (draw(1, 3, 2).float(), draw(1, 4, 2).float())),
    "energies": (energies, lambda a, b: a @ b.mT, (draw(1, 3, 2), draw(1, 4, 2))),
    "dot_product": (dot_product, lambda q, k, v: q @ k.mT @ v, (draw(1, 4, 2), draw(1, 3, 2), draw(1, 3, 2))),
}


def on(device: torch.device, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(t.to(device) for t in inputs)


def tracked(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(t.clone().requires_grad_() for t in inputs)


def mapped(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.stack([t, t.flip(0) * 0.5]) for t in inputs)


def _squared(f: Callable) -> Callable:
    return lambda *inputs: f(*inputs).double().square().sum()


def _dual(f: Callable, inputs: tuple[Tensor, ...]) -> Tensor:
    with forward_ad.dual_level():
        out = f(*(forward_ad.make_dual(t, torch.sin(t)) for t in inputs))
        return forward_ad.unpack_dual(out).tangent


def _twice(f: Callable, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    inputs = tracked(inputs)
    slopes = torch.autograd.grad(_squared(f)(*inputs), inputs, create_graph=True)
    return torch.autograd.grad(sum(slope.square().sum() for slope in slopes), inputs)


def _slope_size(f: Callable) -> Callable:
    return lambda *inputs: func.grad(_squared(f))(*inputs).square().sum()


def _batched(f: Callable, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    inputs = tracked(inputs)
    out = f(*inputs)
    slopes = torch.stack([torch.ones_like(out), out.detach()])
    return torch.autograd.grad(out, inputs, slopes, is_grads_batched=True)


TRANSFORMS: dict[str, Callable[[Callable, tuple[Tensor, ...]], object]] = {
    "backward": lambda f, x: torch.autograd.grad(_squared(f)(*(y := tracked(x))), y),
    "is_grads_batched": _batched,
    "create_graph": _twice,
    "forward_ad": _dual,
    "forward_ad of tracked": lambda f, x: _dual(f, tracked(x)),
    "functional.jvp": lambda f, x: functional.jvp(f, x, tuple(map(torch.sin, x)))[1],
    "functional.hessian": lambda f, x: functional.hessian(_squared(f), x),
    "functional.jacobian": lambda f, x: functional.jacobian(f, x),
    "functional.jacobian vectorized": lambda f, x: functional.jacobian(f, x, vectorize=True),
    "functional.jacobian forward": lambda f, x: functional.jacobian(
        f, x, vectorize=True, strategy="forward-mode"
    ),
    "grad": lambda f, x: func.grad(_squared(f), tuple(range(len(x))))(*x),
    "grad of grad": lambda f, x: func.grad(_slope_size(f))(*x),
    "vjp": lambda f, x: func.vjp(f, *x)[1](f(*x)),
    "jvp": lambda f, x: func.jvp(f, x, tuple(map(torch.sin, x)))[1],
    "linearize": lambda f, x: func.linearize(f, *x)[1](*map(torch.sin, x)),
    "jacrev": lambda f, x: func.jacrev(f)(*x),
    "jacfwd": lambda f, x: func.jacfwd(f)(*x),
    "hessian": lambda f, x: func.hessian(_squared(f))(*x),
    "jacrev of jacrev": lambda f, x: func.jacrev(func.jacrev(_squared(f)))(*x),
    "grad of jvp": lambda f, x: func.grad(lambda *y: func.jvp(_squared(f), y, y)[1])(*x),
    "vmap": lambda f, x: func.vmap(f)(*mapped(x)),
    "vmap of the first": lambda f, x: func.vmap(f, in_dims=(1, *[None] * (len(x) - 1)))(
        mapped(x)[0].movedim(0, 1), *x[1:]
    ),
    "vmap of grad": lambda f, x: func.vmap(func.grad(_squared(f)))(*mapped(x)),
    "grad of vmap": lambda f, x: func.grad(_squared(func.vmap(f)))(*mapped(x)),
    "backward of vmap": lambda f, x: torch.autograd.grad(
        _squared(func.vmap(f))(*(y := tracked(mapped(x)))), y
    ),
}

#: What an operator cannot do. Everything else it has to do right.
REFUSED = {
    "forward mode": {"forward_ad", "forward_ad of tracked", "functional.jacobian forward", "jvp", "linearize"}
    | {"jacfwd", "hessian", "grad of jvp"},
    "twice": {"create_graph", "functional.hessian", "functional.jvp", "grad of grad", "jacrev of jacrev"},
}
#: PyTorch takes the tangent from the gradient as a function of the loss's slope, in which this one is linear.
LINEAR = ("upsampled_cross_entropy", "functional.jvp")
# Made of PyTorch's own operators, or left to them where there is a derivative.
PLAIN = {"concatenation_attention", "product", "energies", "dot_product", "winograd_convolution"}


def test_there_is_a_case_for_every_function():
    functions = {getattr(danseg.ops, name).__name__ for name in danseg.ops.__all__}
    assert functions and functions <= set(CASES)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", CASES)
def test_the_plain_forms_value_or_an_error(name, transform, device):
    function, plain, inputs = CASES[name]
    try:
        want = TRANSFORMS[transform](plain, inputs)  # on the CPU
    except RuntimeError as error:  # labels have no derivative: PyTorch's own error stays PyTorch's
        assert name == "upsampled_argmax"
        inputs = on(device, inputs)
        with pytest.raises(RuntimeError, match=re.escape(str(error).split(",")[0][:40])):
            TRANSFORMS[transform](function, inputs)
        return
    inputs = on(device, inputs)
    refused = next((kind for kind, names in REFUSED.items() if transform in names), None)
    if refused and name not in PLAIN | {"upsampled_argmax"} and (name, transform) != LINEAR:
        wanted = "forward-mode" if refused == "forward mode" else "once, not twice"
        with pytest.raises(NotImplementedError, match=rf"danseg\.ops\.{name} .*{wanted}.*plain form, \S+"):
            TRANSFORMS[transform](function, inputs)
        return
    got = TRANSFORMS[transform](function, inputs)
    if want is None:
        assert got is None
    else:
        torch.testing.assert_close(got, want, check_dtype=False, check_device=False)


def test_the_plain_forms_that_errors_name_exist():
    named = []
    for name in set(CASES) - PLAIN - {"upsampled_argmax"}:
        function, _, inputs = CASES[name]
        with pytest.raises(NotImplementedError) as error:
            func.jvp(function, inputs, inputs)
        named += re.findall(r"reference\.(\w+)", str(error.value))
    assert len(named) >= 3
    assert all(hasattr(reference, name) for name in named)


@pytest.mark.parametrize("transform", ["backward", "grad", "vmap of grad"])
def test_kernels_see_nothing_that_is_differentiated(transform, monkeypatch, device):
    # With it, products would leave the fast library, which knows no derivatives.
    seen = []

    def product_of(*inputs):
        seen.append(differentiated(*inputs))
        return product(*inputs)

    for module in ("products", "softmax_attention"):  # wide products are made of products
        monkeypatch.setattr(f"danseg.ops.{module}.product", product_of)
    function, _, inputs = CASES["attention"]
    TRANSFORMS[transform](function, on(device, inputs))
    assert len(seen) >= 6 and not any(seen)
    assert differentiated(*tracked(inputs))


def test_compiled_calls_follow_the_same_rule(device):
    class Module(torch.nn.Module):
        def forward(self, query, key, value):
            return danseg.ops.attention(query, key, value)

    inputs = on(device, CASES["attention"][2])
    compiled = torch.compile(Module(), backend="aot_eager")
    want = TRANSFORMS["backward"](danseg.ops.attention, inputs)
    torch.testing.assert_close(TRANSFORMS["backward"](compiled, inputs), want)
    for transform in ("forward_ad", "jvp", "create_graph"):
        with pytest.raises(NotImplementedError, match="danseg.ops.attention"):
            TRANSFORMS[transform](compiled, inputs)


def test_nothing_is_registered_in_another_way():
    root = Path(danseg.__file__).parent
    files = [
        path
        for path in [*root.rglob("*.py"), *root.parent.glob("tools/**/*.py")]
        if path.name != "operator.py"
    ]
    assert len(files) > 100
    other = re.compile(r"custom_op\(|autograd\.Function|register_autograd|library\.(define|impl|Library)")
    assert not [str(path) for path in files if other.search(path.read_text(encoding="utf-8"))]
