"""Criss-cross attention: every position attends to its own row and column, under one softmax.

Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation", ICCV 2019, arXiv 1811.11721.

A position has H + W - 1 energies. Two batched matrix products compute them, one over rows and one over
columns, and two more compute the output. With channels last, these products read and write the feature
maps in the layout that they have, so no feature map is transposed. Only one block of the map is alive at
a time, in the forward pass and in the backward pass, which recomputes it.

The two passes are custom operators, as in :mod:`danseg.ops.softmax_attention`.
"""

import math

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from danseg.ops.blocks import block_bytes, cached_bytes
from danseg.ops.exported_criss_cross import exported_criss_cross
from danseg.ops.exporting import exporting
from danseg.ops.inputs import check_alike, energy_dtype
from danseg.ops.operator import operator

_NAMES = "danseg.ops.criss_cross_attention", "danseg.ops.reference.criss_cross_attention"


def criss_cross_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Exact criss-cross attention: ``out_u = Σ_i softmax_i(q_u · k_i) v_i``, i in u's row and column.

    The position itself counts once, so the softmax of position (h, w) runs over H + W - 1
    entries. Energies and their softmax are held in float32 for 16-bit inputs.

    Args:
        query: ``(B, C, H, W)``, floating point.
        key: ``(B, C, H, W)``, same dtype and device.
        value: ``(B, D, H, W)``, same dtype and device. Channels last saves a copy.

    Returns:
        ``(B, D, H, W)`` with channels last in memory, in the inputs' dtype, differentiable once
        with respect to query, key and value.

    Raises:
        ValueError: when shapes, dtypes or devices do not match.
    """
    if exporting():
        return exported_criss_cross(query, key, value)
    _check(query, key, value)
    by_position = (t.permute(0, 2, 3, 1).contiguous() for t in (query, key, value))  # (B, H, W, channels)
    return _criss_cross_forward(*by_position).permute(0, 3, 1, 2)


def _check(query: Tensor, key: Tensor, value: Tensor) -> None:
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if not query.dim() == key.dim() == value.dim() == 4:
        raise ValueError(
            f"criss_cross_attention takes query and key (B, C, H, W) and value (B, D, H, W), got {shapes}"
        )
    if query.shape != key.shape or query.shape[0] != value.shape[0] or query.shape[2:] != value.shape[2:]:
        raise ValueError(
            f"criss_cross_attention needs query and key of one shape, and a value of the same batch, "
            f"height and width, got {shapes}"
        )
    check_alike("criss_cross_attention", query=query, key=key, value=value)


def _rows_per_block(query: Tensor, value: Tensor, dtype: torch.dtype, alive: int) -> int:
    """Number of rows of the feature map whose energies make up one block.

    While a block is computed, its column part and its row part take as much memory again.
    """
    _, height, width, channels = query.shape
    operand_bytes = 2 * height * width * (channels + value.shape[3]) * dtype.itemsize
    budget = block_bytes(operand_bytes, query.device, alive)
    most = max(1, budget // (width * (height + width) * dtype.itemsize))
    # Blocks of equal size: a small last block would save no call and leave the others larger.
    blocks = max(1, math.ceil(height / most))
    return max(1, math.ceil(height / blocks))


def _columns(rows: Tensor) -> Tensor:
    """(H, W, channels) as (W, H, channels): a batch of columns instead of a batch of rows."""
    return rows.transpose(0, 1)


def _products(a: Tensor, b: Tensor, start: int, out: Tensor) -> None:
    """Write to ``out`` the products ``a_u · b_i`` of each position u with the positions i on its cross.

    ``a`` (R, W, C) holds R rows from row ``start`` on, ``b`` is (H, W, C). ``out`` is (R, W, H + W): first
    the positions of u's column, then those of its row.
    """
    column = torch.bmm(_columns(a), _columns(b).mT)  # (W, R, H)
    row = torch.bmm(a, b[start : start + len(a)].mT)  # (R, W, W)
    torch.cat([_columns(column), row], dim=-1, out=out)


def _weights(q: Tensor, k: Tensor, start: int, out: Tensor) -> None:
    """Write to ``out`` the attention weights of R rows; arguments as in :func:`_products`."""
    _products(q, k, start, out)
    # The row part contains the position itself already.
    out[..., : len(k)].diagonal(start, 0, 2).fill_(-torch.inf)
    torch.softmax(out, dim=-1, out=out)


def _add_columns(out: Tensor, a: Tensor, b: Tensor) -> None:
    """``out += a b`` column by column, for ``a`` (W, R, S), ``b`` (S, W, D) and ``out`` (R, W, D).

    It takes a group of columns at a time, whose result stays in the caches: torch would multiply column by
    column if it wrote the product in place.
    """
    height, width, channels = out.shape
    step = max(1, cached_bytes(out.device) // (height * channels * out.itemsize))
    for start in range(0, width, step):
        c = slice(start, min(start + step, width))
        _columns(out)[c].add_(torch.bmm(a[c], _columns(b)[c]))


@operator(*_NAMES)
def _criss_cross_forward(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Output (B, H, W, D) of query, key and value, all given as (B, H, W, channels)."""
    batch, height, width, _ = query.shape
    dtype, wide = query.dtype, energy_dtype(query.dtype)
    out = torch.empty_like(value)
    rows = _rows_per_block(query, value, wide, alive=1)
    blocks = query.new_empty(rows, width, height + width, dtype=wide)
    # Autocast would compute the float32 energies in 16 bits.
    with torch.autocast(query.device.type, enabled=False):
        for b in range(batch):
            q, k, v = query[b].to(wide), key[b].to(wide), value[b]
            for start in range(0, height, rows):
                r = slice(start, min(start + rows, height))
                block = blocks[: r.stop - r.start]
                _weights(q[r], k, start, out=block)
                column, row = block.to(dtype).split((height, width), dim=-1)
                torch.bmm(row, v[r], out=out[b, r])
                _add_columns(out[b, r], _columns(column), v)
    return out


@_criss_cross_forward.register_fake
def _(query, key, value):
    return torch.empty_like(value)


@operator(*_NAMES)
def _criss_cross_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, all (B, H, W, channels).

    With the recomputed weights P and the output's gradient G, for each row and for each column::

        dV = Pᵀ G        dE = P ∘ (G Vᵀ - Σ P ∘ G Vᵀ)        dq = dE k        dk = dEᵀ q
    """
    batch, height, width, _ = query.shape
    dtype, wide = query.dtype, energy_dtype(query.dtype)
    grads = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    rows = _rows_per_block(query, value, wide, alive=2)
    maps, slopes = (query.new_empty(rows, width, height + width, dtype=wide) for _ in range(2))
    with torch.autocast(query.device.type, enabled=False):
        for b in range(batch):
            # All wide: dE is the difference of two similar numbers, which in 16 bits would be mostly
            # rounding error, and the gradients accumulate over blocks.
            q, k, v = (t[b].to(wide) for t in (query, key, value))
            dq, dk, dv = (t[b].to(wide) for t in grads)  # views of the gradients if these are wide
            for start in range(0, height, rows):
                r = slice(start, min(start + rows, height))
                block, slope = maps[: r.stop - r.start], slopes[: r.stop - r.start]
                _weights(q[r], k, start, out=block)
                g = grad[b, r].to(wide)
                _products(g, v, start, out=slope)
                slope.mul_(block)
                slope.addcmul_(block, slope.sum(-1, keepdim=True), value=-1)
                column, row = block.split((height, width), dim=-1)
                dv[r].baddbmm_(row.mT, g)
                _add_columns(dv, _columns(column).mT, g)
                column, row = slope.split((height, width), dim=-1)
                dq[r].baddbmm_(row, k[r])
                _add_columns(dq[r], _columns(column), k)
                dk[r].baddbmm_(row.mT, q[r])
                _add_columns(dk, _columns(column).mT, q[r])
            if wide != dtype:
                for whole, part in zip(grads, (dq, dk, dv), strict=True):
                    whole[b] = part
    return grads


@_criss_cross_backward.register_fake
def _(grad, query, key, value):
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _save_for_backward(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor):
    return _criss_cross_backward(grad.contiguous(), *ctx.saved_tensors)


_criss_cross_forward.register_gradient(_save_for_backward, _backward)


@register_flop_formula(torch.ops.danseg.criss_cross_forward)
def _forward_flops(query_shape, key_shape, value_shape, *_args, **_kwargs) -> int:
    batch, height, width, channels = query_shape
    return 2 * batch * height * width * (height + width) * (channels + value_shape[3])


@register_flop_formula(torch.ops.danseg.criss_cross_backward)
def _backward_flops(grad_shape, query_shape, key_shape, value_shape, *_args, **_kwargs) -> int:
    batch, height, width, channels = query_shape
    return 2 * batch * height * width * (height + width) * (3 * channels + 2 * value_shape[3])
