"""Matrix products: by the fastest library, and precise enough for energies."""

import math

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from danseg.ops.inputs import energy_dtype, without_autocast
from danseg.ops.operator import differentiated


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a bᵀ + bias`` for a (E, R, K), b (E, S, K) and a bias (E, S), as (E, R, S).

    On CPUs, a single pair of float32 matrices goes to oneDNN. On processors other than Intel's it is
    about twice as fast as the library behind ``torch.bmm``; on Intel's it is as fast. It knows no
    derivatives, so tensors that are being differentiated, as none is in an operator, go to ``torch.bmm``.
    """
    if _onednn_takes(a) and not differentiated(a, b, bias):
        row = None if bias is None else bias[0]
        linear = torch.ops.mkldnn._linear_pointwise
        return linear(a[0].contiguous(), b[0].contiguous(), row, "none", [], "")[None]
    return torch.bmm(a, b.mT) if bias is None else torch.baddbmm(bias[:, None], a, b.mT)


if hasattr(torch.ops.mkldnn, "_linear_pointwise"):

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _flops(x_shape, weight_shape, *_args, **_kwargs) -> int:
        return 2 * math.prod(x_shape) * weight_shape[0]


def multiplies_wide(x: Tensor) -> bool:
    """Whether products of 16-bit matrices like ``x`` can be summed and kept in float32: on GPUs they can."""
    return x.is_cuda and x.dtype in (torch.float16, torch.bfloat16) and hasattr(torch.ops.aten.bmm, "dtype")


def wide_product(a: Tensor, b: Tensor, bias: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """``scale · a bᵀ + bias`` as :func:`product` gives it, but in at least float32.

    Where :func:`multiplies_wide`, 16-bit matrices are multiplied as they are: many times as fast as in
    float32, with the same products. It knows no derivatives.
    """
    if not multiplies_wide(a):
        wide = energy_dtype(a.dtype)
        return product(a.to(wide), b.to(wide) if scale == 1 else b.to(wide) * scale, bias)
    out = torch.bmm(a, b.mT, out_dtype=torch.float32)
    if scale != 1:
        out.mul_(scale)
    return out if bias is None else out.add_(bias[:, None])


def _onednn_takes(a: Tensor) -> bool:
    mkldnn = torch.backends.mkldnn
    if len(a) != 1 or a.dtype != torch.float32 or a.device.type != "cpu":
        return False
    return bool(mkldnn.enabled and mkldnn.is_available()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def energies(query: Tensor, key: Tensor) -> Tensor:
    """``query keyᵀ`` (B, N, M) of queries (B, N, C) and keys (B, M, C), in at least float32.

    It is meant for the few rows of a map that a user asks for, because it holds all of them in memory.
    Autocast does not change the precision.
    """
    wide = energy_dtype(query.dtype)
    with without_autocast(query):
        return query.to(wide) @ key.to(wide).transpose(1, 2)


def dot_product(query: Tensor, key: Tensor, value: Tensor, *, scale: float = 1.0) -> Tensor:
    """``scale · (query keyᵀ) value``: attention without a softmax, in linear time by associativity.

    ``keyᵀ value`` is computed first, (B, C, D) instead of (B, N, M), and summed in at least float32.

    Args:
        query: ``(B, N, C)``.
        key: ``(B, M, C)``.
        value: ``(B, M, D)``.
        scale: factor on the result.

    Returns:
        ``(B, N, D)`` in the dtype of ``value``.
    """
    wide = energy_dtype(value.dtype)
    with without_autocast(query):
        summary = key.to(wide).transpose(1, 2) @ value.to(wide) * scale
        return (query.to(wide) @ summary).to(value.dtype)
