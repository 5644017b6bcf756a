"""Softmax attention in PyTorch's own operators, for files: a loop over blocks of queries."""

import torch
from torch import Tensor
from torch.nn import functional as F

from danseg.ops.exporting import scripted, stacked
from danseg.ops.inputs import energy_dtype

# Queries of a block, of each entry of the batch. With fewer, the loop's turns cost more than they save in
# memory: in ONNX Runtime, each of them copies the output; benchmarks/exported_attention.py measures it.
_ROWS = 256


def exported_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """:func:`danseg.ops.attention` for queries (B, N, C), keys (B, M, C) and values (B, M, D): (B, N, D)."""
    dtype, wide = value.dtype, energy_dtype(query.dtype)
    query, key_t = query.to(wide) * scale, key.to(wide).transpose(1, 2)
    if torch.jit.is_tracing():
        return scripted(_by_blocks)(query, key_t, value, _ROWS).to(dtype)
    key_t = key_t.clone()  # the loop takes no two views of one tensor, as keys and values may be
    positions = query.shape[1]
    blocks = (positions + _ROWS - 1) // _ROWS
    room = blocks + 1 // blocks  # 2 for a single block: see :func:`stacked`
    query = F.pad(query, (0, 0, 0, room * _ROWS - positions))
    query = query.unflatten(1, (room, _ROWS)).transpose(0, 1)  # (T, B, R, C)
    out = value.new_zeros(room, query.shape[1], _ROWS, value.shape[2])
    out = stacked(blocks, lambda i: _attend(query.index_select(0, i), key_t, value), out)
    return out.transpose(0, 1).flatten(1, 2)[:, :positions]


def exported_window_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The same without a loop, for many small maps: (B, N, N) numbers of windows of N positions are alive."""
    wide = energy_dtype(query.dtype)
    return _attend(query.to(wide) * scale, key.to(wide).transpose(1, 2), value)


def _by_blocks(query: Tensor, key_t: Tensor, value: Tensor, rows: int) -> Tensor:
    """The loop in TorchScript, which takes no function as an argument; (B, N, D)."""
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
