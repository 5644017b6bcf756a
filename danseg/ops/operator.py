"""How the operators are registered with PyTorch: gradients and ``vmap`` work, other derivatives raise.

An operator is one opaque call to ``torch.compile`` and PyTorch's transforms. (A model that is exported has
none: :mod:`danseg.ops.exporting`.) What such a call does not define, PyTorch may take for zero:
``torch.library.custom_op`` drops the tangents of forward mode, and derivatives of the outputs that are kept
for the backward pass count for nothing. So every operator is registered here, with one rule for all
derivatives: the first one, in reverse mode, or an error.
"""

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

_LIBRARY = torch.library.Library("danseg", "FRAGMENT")


class Operator:
    """An operator ``torch.ops.danseg.NAME``: a kernel, and what PyTorch's transforms do with it.

    Only the first output is differentiable; the others are kept for the backward pass. If the last argument
    is ``with_grad: bool = False``, callers leave it out. It is True where a gradient may be asked for.

    Args:
        kernel: computes the outputs; its name, without an underscore in front, is the operator's.
        function: the public function that the operator belongs to.
        plain: code with the same result that PyTorch differentiates in every way.
    """

    def __init__(self, kernel: Callable[..., Any], function: str, plain: str) -> None:
        name = kernel.__name__.removeprefix("_")
        self._name = f"danseg::{name}"
        self._function = function
        self._plain = plain
        self._save: Callable[..., None] | None = None
        self._backward: Callable[..., Any] | None = None
        schema = torch.library.infer_schema(kernel, mutates_args=())
        torch.library.define(self._name, schema, lib=_LIBRARY, tags=torch.Tag.pt2_compliant_tag)
        self._overload = getattr(torch.ops.danseg, name).default
        arguments = self._overload._schema.arguments
        self._before_with_grad = len(arguments) - 1 if arguments[-1].name == "with_grad" else None
        _LIBRARY.impl(name, _sealed(kernel), "CompositeExplicitAutograd")
        _LIBRARY.impl(name, self._differentiate, "Autograd")
        torch.library.register_vmap(self._name, self._one_by_one, lib=_LIBRARY)

    def __call__(self, *args: Any) -> Any:
        return self._overload(*args)

    def register_fake(self, function: Callable[..., Any]) -> None:
        """Set what makes empty outputs of the right shapes; used as a decorator."""
        torch.library.register_fake(self._name, function, lib=_LIBRARY)

    def register_gradient(self, save: Callable[..., None], backward: Callable[..., Any]) -> None:
        """Set the formula of the gradient.

        Args:
            save: called with ``ctx``, inputs and output; keeps on ``ctx`` what ``backward`` needs.
            backward: called with ``ctx`` and the first output's gradient; returns the gradients of the first
                arguments, as many as are differentiable.
        """
        self._save, self._backward = save, backward

    def below_autograd(self, *args: Any) -> Any:
        """The kernel's outputs, which know nothing of derivatives."""
        with torch._C._AutoDispatchBelowAutograd():
            return self._overload(*args)

    def _differentiate(self, *args: Any) -> Any:
        """What autograd does with a call, in PyTorch's own API and in each of ``torch.func``'s transforms."""
        tensors = [value for value in args if isinstance(value, Tensor)]
        if _with_tangent(tensors):
            self.refuse(
                "has no forward-mode derivative (jvp, jacfwd, linearize, dual numbers): take the gradient by "
                "backward(), torch.autograd.grad or torch.func.grad"
            )
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            return self.below_autograd(*args)
        if self._before_with_grad is not None:
            args = (*args[: self._before_with_grad], True)
        if not torch._C._are_functorch_transforms_active():
            return _Once.apply(self, *args)
        # This kernel runs for one of torch.func's transforms at a time, as PyTorch's own kernels do.
        with enable_single_level_autograd_function():
            return super(torch.autograd.Function, _Once).apply(self, *args)

    def refuse(self, reason: str) -> NoReturn:
        raise NotImplementedError(f"{self._function} {reason}, or use the plain form, {self._plain}")

    def _one_by_one(self, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        """The rule for ``vmap``: one call for each entry of the mapped dimension."""
        calls = [
            self._overload(
                *(
                    value.select(dim, i) if isinstance(dim, int) else value
                    for value, dim in zip(args, in_dims, strict=True)
                )
            )
            for i in range(info.batch_size)
        ]
        if isinstance(calls[0], Tensor):
            return torch.stack(calls), 0
        outputs = tuple(torch.stack(output) for output in zip(*calls, strict=True))
        return outputs, (0,) * len(outputs)


def _sealed(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel, with inputs that autograd does not follow, and with loops that are never compiled.

    ``torch.compile`` would unroll the loops where it meets them between compiled code.
    """
    disabled = torch._disable_dynamo(kernel)  # imports the compiler when it is first called, in two seconds

    def run(*args: Any) -> Any:
        function = disabled if "torch._dynamo" in sys.modules else kernel
        return function(*(value.detach() if isinstance(value, Tensor) else value for value in args))

    return run


def differentiated(*values: Any) -> bool:
    """Whether a tensor among the arguments is being differentiated, in any mode, or mapped over."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    followed = any(t.requires_grad for t in tensors) or _with_tangent(tensors)
    return followed or torch._C._are_functorch_transforms_active()


def _with_tangent(tensors: list[Tensor]) -> bool:
    return any(forward_ad.unpack_dual(t).tangent is not None for t in tensors)


class _Once(torch.autograd.Function):
    """The autograd function of all operators: one gradient, and an error for a gradient of that gradient."""

    @staticmethod
    def forward(operator, *args):
        # PyTorch switches derivatives off here, and the transforms around this one would see zero.
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
            return operator.below_autograd(*args)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.operator, *args = inputs
        ctx.arguments = len(args)
        ctx.set_materialize_grads(False)  # to tell a gradient that is asked for from one that is not
        if ctx.operator._save is not None:
            ctx.operator._save(ctx, args, output)

    @staticmethod
    def backward(ctx, grad, *grads_of_kept):
        operator = ctx.operator
        if operator._backward is None or any(g is not None for g in grads_of_kept):
            operator.refuse(
                "can be differentiated once, not twice (hessian, a gradient of a gradient, a second "
                "derivative after create_graph=True)"
            )
        grads = (None,) * ctx.arguments if grad is None else operator._backward(ctx, grad)
        return None, *grads, *(None,) * (ctx.arguments - len(grads))


def operator(function: str, plain: str) -> Callable[[Callable[..., Any]], Operator]:
    """A decorator that makes a kernel an :class:`Operator`."""
    return lambda kernel: Operator(kernel, function, plain)
