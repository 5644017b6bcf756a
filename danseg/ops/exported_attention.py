"""Softmax attention in PyTorch's own operators, for files: a loop over blocks of queries, never the N x M map."""

import torch
from torch import Tensor
from torch.nn import functional as F

from danseg.ops.exporting import scripted, stacked
from danseg.ops.inputs import energy_dtype

# Queries of a block, of each entry of the batch. With fewer, a loop's turns cost more than they save in memory: each
# of them copies the whole output in ONNX Runtime; benchmarks/exported_attention.py measures it.
_ROWS = 256


def exported_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """:func:`danseg.ops.attention` for queries (B, N, C), keys (B, M, C) and values (B, M, D): (B, N, D)."""
    dtype, wide = value.dtype, energy_dtype(query.dtype)
    query, key_t = query.to(wide) * scale, key.to(wide).transpose(1, 2)
    if torch.jit.is_tracing():
        return scripted(_by_blocks)(query, key_t, value, _ROWS).to(dtype)
    positions = query.shape[1]
    if isinstance(positions, int) and positions <= _ROWS:  # windows
        return _attend(query, key_t, value)
    blocks = (positions + _ROWS - 1) // _ROWS
    room = blocks + 1
    query = F.pad(query, (0, 0, 0, room * _ROWS - positions))
    query = query.unflatten(1, (room, _ROWS)).transpose(0, 1)  # (T, B, R, C)
    out = value.new_zeros(room, query.shape[1], _ROWS, value.shape[2])
    out = stacked(blocks, lambda i: _attend(query.index_select(0, i), key_t, value), out)
    return out.transpose(0, 1).flatten(1, 2)[:, :positions]


def _by_blocks(query: Tensor, key_t: Tensor, value: Tensor, rows: int) -> Tensor:
    """The loop in TorchScript, which cannot take a function; there the last block may be smaller than others."""
    positions = query.shape[1]
    rows = min(rows, positions)
    blocks = (positions + rows - 1) // rows
    query = F.pad(query, [0, 0, 0, blocks * rows - positions])
    query = query.reshape(query.shape[0], blocks, rows, query.shape[2]).transpose(0, 1)  # (T, B, R, C)
    out = torch.zeros([blocks, query.shape[1], rows, value.shape[2]], dtype=value.dtype, device=value.device)
    for i in range(blocks):
        out[i] = _attend(query[i], key_t, value)
    return out.transpose(0, 1).flatten(1, 2)[:, :positions]


def _attend(query: Tensor, key_t: Tensor, value: Tensor) -> Tensor:
    """Outputs (..., R, D) of queries (..., R, C), for keys (B, C, M) and values (B, M, D)."""
    return torch.matmul(torch.matmul(query, key_t).softmax(-1).to(value.dtype), value)
