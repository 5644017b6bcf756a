"""Exact softmax attention whose memory grows linearly with the number of positions.

The usual form writes the N x M map of ``softmax(q kᵀ)`` to memory, in training several
times over. Here only one block of it is ever alive, in the forward pass and in the
backward pass, which recomputes it. The result is the same up to rounding: nothing is
approximated, sampled or windowed.

* 16 bits on a GPU: PyTorch's own kernels, see :mod:`danseg.ops.fused_attention`.
* All else: blocks of matrix products, below. For float32 they are faster on a GPU, too, than the one kernel
  that PyTorch has for it, and they follow PyTorch's switches for TF32.

The two passes are registered as custom operators, so ``torch.compile`` sees one opaque call each instead of
unrolling the loop over blocks. A model that is exported gets :mod:`danseg.ops.exported_attention`.

The idea of recomputing softmax blocks from a stored log-sum-exp comes from Rabe and
Staats, "Self-attention Does Not Need O(n²) Memory" (arXiv 2112.05682) and from Dao et al.,
"FlashAttention" (NeurIPS 2022, arXiv 2205.14135).
"""

import math

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from danseg.ops.blocks import block_bytes, cached_bytes, keep_freed_blocks
from danseg.ops.exported_attention import exported_attention
from danseg.ops.exporting import exporting
from danseg.ops.fused_attention import fused_attention, fused_kernels_take
from danseg.ops.inputs import check_alike, energy_dtype
from danseg.ops.operator import operator
from danseg.ops.products import multiplies_wide, product, wide_product

_LEAST_ROWS = 32  # with fewer rows, the products wait for the other operand to be read
_NAMES = "danseg.ops.attention", "danseg.ops.reference.attention"


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float = 1.0,
    block_size: int | None = None,
) -> Tensor:
    """Exact attention ``softmax(scale · query keyᵀ) value`` in linear memory.

    Equivalent plain code, which needs the whole N x M map::

        (scale * query @ key.transpose(1, 2)).softmax(dim=-1) @ value

    Energies and their softmax are held in float32 for 16-bit inputs.

    Args:
        query: ``(B, N, C)``, floating point.
        key: ``(B, M, C)``, same dtype and device.
        value: ``(B, M, D)``, same dtype and device; ``D`` may differ from ``C``.
        scale: factor on the energies. The default 1 is what DANet and CCNet use;
            Transformers use ``C ** -0.5``.
        block_size: rows of the map that are alive at a time, of one entry or of several whole entries.
            By default a block takes a sixth of the memory of an entry's query, key, value and output,
            but at least 4 MiB and at most 24 MiB (12 MiB in the backward pass, which holds two blocks);
            on a GPU 64 to 256 MiB. Several small maps share a block of 2 MiB (64 MiB). The result
            depends on it by rounding alone.

    Returns:
        ``(B, N, D)`` in the inputs' dtype, differentiable once with respect to query,
        key and value. Its memory layout follows that of ``value``, so a transposed view
        of a ``(B, D, H·W)`` feature map comes back without a copy.

    Raises:
        ValueError: when shapes, dtypes or devices do not match, or ``block_size`` is below 1.
    """
    if exporting():
        return exported_attention(query, key, value, scale)
    _check(query, key, value, block_size)
    if block_size is None and fused_kernels_take(query, value):
        return fused_attention(query, key, value, scale)
    return _attention_forward(query, key, value, scale, block_size or 0)[0]


def _check(query: Tensor, key: Tensor, value: Tensor, block_size: int | None) -> None:
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if not query.dim() == key.dim() == value.dim() == 3:
        raise ValueError(f"attention takes query (B, N, C), key (B, M, C) and value (B, M, D), got {shapes}")
    if query.shape[0] != key.shape[0] or key.shape[:2] != value.shape[:2] or query.shape[2] != key.shape[2]:
        raise ValueError(
            f"attention needs one batch size, one channel count for query and key, and one number of "
            f"positions for key and value, got {shapes}"
        )
    if key.shape[1] == 0:
        raise ValueError(f"attention needs at least one key to attend to, got {shapes}")
    check_alike("attention", query=query, key=key, value=value)
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size must be at least 1 or None, got {block_size}")


def _block_shape(
    rows: int, columns: int, query: Tensor, value: Tensor, element_size: int, block_size: int, alive: int
) -> tuple[int, int]:
    """How many entries of the batch, and how many rows of each entry's map, a block holds.

    A given ``block_size`` (not 0) is the number of rows. Otherwise a block has as many rows as the budget
    for ``alive`` blocks allows, but enough for fast products. Small maps share a block: hundreds of them,
    as in windows or groups, then cost a few calls instead of several calls each.
    """
    batch = len(query)
    row_bytes = columns * element_size
    operands = (rows + columns) * (query.shape[2] + value.shape[2])
    budget = block_bytes(operands * element_size, query.device, alive)
    shared = (block_size or cached_bytes(query.device) // row_bytes) // max(1, rows)
    rows_alive = block_size or max(_LEAST_ROWS, budget // row_bytes)
    return max(1, min(batch, shared)), max(1, min(rows, rows_alive))


def _slices(total: int, size: int) -> list[slice]:
    """``range(total)`` cut into slices of ``size``; the last one may be shorter."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def _empty_in_layout_of(reference: Tensor, positions: int) -> Tensor:
    """An uninitialised (B, positions, D) tensor, D-major where ``reference`` (B, M, D) is."""
    batch, _, channels = reference.shape
    if reference.stride(1) == 1 and reference.stride(2) != 1:
        return reference.new_empty(batch, channels, positions).transpose(1, 2)
    return reference.new_empty(batch, positions, channels)


def _weighted(block: Tensor, value_t: Tensor, out: Tensor) -> None:
    """Write ``block value`` to ``out`` (E, R, D), for a block (E, R, M) and transposed values (E, D, M).

    Where ``out`` is D-major, this computes the transposed product, which it can write row by row. On CPUs,
    a 16-bit product written straight into such an ``out`` is about a hundred times slower.
    """
    if out.stride(1) == 1 and out.stride(2) != 1:
        out.mT.copy_(product(value_t, block))
    else:
        out.copy_(product(block, value_t))


@operator(*_NAMES)
def _attention_forward(
    query: Tensor, key: Tensor, value: Tensor, scale: float, block_size: int, with_grad: bool = False
) -> tuple[Tensor, Tensor]:
    """Output (B, N, D) and the log-sum-exp of each row of energies (B, N), empty without ``with_grad``."""
    batch, n, _ = query.shape
    m = key.shape[1]
    dtype, wide = query.dtype, energy_dtype(query.dtype)
    mixed = multiplies_wide(query)
    out = _empty_in_layout_of(value, n)
    lse = query.new_empty((batch, n) if with_grad else (0, 0), dtype=wide)
    entries, rows = _block_shape(n, m, query, value, wide.itemsize, block_size, alive=1)
    keep_freed_blocks()
    # Autocast would compute the float32 energies in 16 bits.
    with torch.autocast(query.device.type, enabled=False):
        for b in _slices(batch, entries):
            q = query[b] if mixed else query[b].to(wide) * scale  # (E, N, C)
            k = key[b].to(q.dtype).contiguous()  # (E, M, C)
            v_t = value[b].mT.contiguous()  # (E, D, M), no copy where a feature map was given
            for r in _slices(n, rows):
                block = wide_product(q[:, r], k, scale=scale if mixed else 1.0)
                if with_grad:
                    torch.amax(block, dim=-1, out=lse[b, r])
                torch.softmax(block, dim=-1, out=block)
                if with_grad:
                    # The largest probability of a row is exp(its largest energy - lse).
                    lse[b, r] -= block.amax(-1).log_()
                _weighted(block.to(dtype), v_t, out[b, r])
                del block  # before the next one is made
    return out, lse


@_attention_forward.register_fake
def _(query, key, value, scale, block_size, with_grad=False):
    shape = (query.shape[0], query.shape[1]) if with_grad else (0, 0)
    return (
        _empty_in_layout_of(value, query.shape[1]),
        query.new_empty(shape, dtype=energy_dtype(query.dtype)),
    )


@operator(*_NAMES)
def _attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    block_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value.

    With P the map, G the gradient of the output O and E = scale · q kᵀ::

        dV = Pᵀ G        dE = P ∘ (G Vᵀ - rowsum(G ∘ O))
        dq = scale · dE k        dK = scale · dEᵀ q

    Blocks run over keys, not over queries: the gradients of a block of keys and values
    are then complete at once, and only the narrow query gradient is accumulated.
    """
    batch, n, _ = query.shape
    m = key.shape[1]
    dtype, wide = query.dtype, energy_dtype(query.dtype)
    mixed, log2e = multiplies_wide(query), math.log2(math.e)
    later = scale if mixed else 1.0  # what q does not hold yet
    grad_query = torch.zeros(query.shape, dtype=wide, device=query.device)
    grad_key = torch.empty(key.shape, dtype=dtype, device=key.device)
    grad_value = _empty_in_layout_of(value, m)
    entries, rows = _block_shape(m, n, query, value, wide.itemsize, block_size, alive=2)
    keep_freed_blocks()
    with torch.autocast(query.device.type, enabled=False):
        for b in _slices(batch, entries):
            q = query[b] if mixed else query[b].to(wide) * scale  # (E, N, C)
            # In base 2: where the map underflows, exp is tens of times slower than exp2 on CPUs.
            q2, lse2 = (q if mixed else q * log2e).contiguous(), lse[b] * -log2e
            q_t = q.mT.contiguous()  # (E, C, N)
            g_t = grad[b].mT.contiguous()  # (E, D, N)
            g = grad[b].to(q.dtype).contiguous()  # (E, N, D)
            shift = -_row_dot(grad[b], out[b], rows, wide)  # (E, N)
            for r in _slices(m, rows):
                k = key[b, r].to(q.dtype)  # (E, R, C)
                # Blocks are transposed (keys x queries): every product below reads them row by row.
                block = wide_product(k, q2, lse2, scale * log2e if mixed else 1.0).exp2_()  # Pᵀ
                _weighted(block.to(dtype), g_t, grad_value[b, r])
                # The difference of two similar numbers: in 16 bits it would be mostly rounding error.
                v = value[b, r].to(q.dtype)  # (E, R, D)
                slope = wide_product(v, g, shift).mul_(block).to(q.dtype)  # dEᵀ
                del block  # before the next one is made
                grad_key[b, r] = wide_product(slope, q_t, scale=later)
                if mixed:
                    grad_query[b].add_(wide_product(slope.mT, k.mT))
                else:
                    grad_query[b].baddbmm_(slope.mT, k)
                del slope  # before the next block is made
    return grad_query.mul_(scale).to(dtype), grad_key, grad_value


def _row_dot(a: Tensor, b: Tensor, rows: int, dtype: torch.dtype) -> Tensor:
    """``(a * b).sum(-1)`` of two (E, N, D) tensors, without a product of that size in memory."""
    pairs = zip(a.split(rows, dim=1), b.split(rows, dim=1), strict=True)
    return torch.cat([(x.to(dtype) * y.to(dtype)).sum(-1) for x, y in pairs], dim=1)


@_attention_backward.register_fake
def _(grad, query, key, value, out, lse, scale, block_size):
    return (
        torch.empty(query.shape, dtype=query.dtype, device=query.device),
        torch.empty(key.shape, dtype=key.dtype, device=key.device),
        _empty_in_layout_of(value, key.shape[1]),
    )


def _save_for_backward(ctx, inputs, output) -> None:
    query, key, value, ctx.scale, ctx.block_size, _ = inputs
    ctx.save_for_backward(query, key, value, *output)
    ctx.mark_non_differentiable(output[1])  # read by the backward operator alone


def _backward(ctx, grad: Tensor):
    return _attention_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.block_size)


_attention_forward.register_gradient(_save_for_backward, _backward)


@register_flop_formula(torch.ops.danseg.attention_forward)
def _forward_flops(query_shape, key_shape, value_shape, *args, **kwargs) -> int:
    """Operations of two products: the energies, and the weighted values."""
    return 2 * query_shape.numel() * key_shape[1] + 2 * query_shape[1] * value_shape.numel()


@register_flop_formula(torch.ops.danseg.attention_backward)
def _backward_flops(grad_shape, query_shape, key_shape, value_shape, *args, **kwargs) -> int:
    """Operations of five products: three of the queries' width (one is the energies), two of the values'."""
    return 6 * query_shape.numel() * key_shape[1] + 4 * query_shape[1] * value_shape.numel()
