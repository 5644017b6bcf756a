"""Criss-cross attention in PyTorch's own operators, for files."""

import torch
from torch import Tensor

from danseg.ops.inputs import energy_dtype


def exported_criss_cross(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """:func:`danseg.ops.criss_cross_attention` of maps (B, C, H, W), (B, C, H, W) and (B, D, H, W).

    It holds all N (H + W) energies, a small part of N², without a loop.
    """
    wide, height = energy_dtype(query.dtype), query.shape[2]
    by_row = [t.permute(0, 2, 3, 1) for t in (query.to(wide), key.to(wide), value)]  # (B, H, W, channels)
    by_column = [t.transpose(1, 2) for t in by_row]  # (B, W, H, channels)
    (q, k, v), (q_column, k_column, v_column) = by_row, by_column
    row = q @ k.transpose(2, 3)  # (B, H, W, W)
    column = q_column @ k_column.transpose(2, 3)  # (B, W, H, H)
    # The row part contains the position itself already.
    places = torch.arange(height, device=query.device)
    column = column.masked_fill(places == places[:, None], -torch.inf)
    # One softmax over both parts.
    row_most, column_most = row.amax(3, keepdim=True), column.amax(3, keepdim=True).transpose(1, 2)
    most = torch.maximum(row_most, column_most)  # (B, H, W, 1)
    row, column = (row - most).exp(), (column - most.transpose(1, 2)).exp()
    total = row.sum(3, keepdim=True) + column.sum(3, keepdim=True).transpose(1, 2)
    gathered = row.to(v.dtype) @ v + (column.to(v.dtype) @ v_column).transpose(1, 2)
    return (gathered / total.to(v.dtype)).permute(0, 3, 1, 2)
