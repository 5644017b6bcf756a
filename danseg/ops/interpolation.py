"""Bilinear resizing as a matrix on each axis, in pieces.

Each output of an axis is made of two cells at most, so that small dense pieces of the matrix, and the
cells that they read, resize a block of rows or columns; their transposes are the gradient. Positions are
taken in float64. (``F.interpolate`` rounds them to float32 and is off by up to 1e-4 on large maps.)
"""

import torch
from torch import Tensor

from danseg.ops.products import product


def bilinear(index: Tensor, length: int, out_length: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Cells and weights (..., 2) that outputs ``index`` (...) of one resize are made of.

    Args:
        index: whole numbers from 0 to before ``out_length``.
        length: cells of the axis before resizing.
        out_length: cells after it.
        align_corners: as in :func:`torch.nn.functional.interpolate`.
    """
    if align_corners:
        position = index.double() * ((length - 1) / max(1, out_length - 1))
    else:
        position = ((index + 0.5).double() * length / out_length - 0.5).clamp(min=0)
    cell = position.floor().long().clamp(max=length - 1)
    rest = position - cell
    # A cell of weight 0 is not read.
    following = (cell + (rest > 0)).clamp(max=length - 1)
    return torch.stack([cell, following], -1), torch.stack([1 - rest, rest], -1)


def pieces(
    cells: Tensor, weights: Tensor, step: int, like: Tensor
) -> list[tuple[slice, slice, Tensor | None]]:
    """One axis' matrix in pieces of ``step`` rows: the outputs, the cells that they read, the piece.

    The piece is None where it would change nothing, as with logits that have their final size.

    Args:
        cells: (n, t) the cells that each output is made of.
        weights: (n, t) their weights.
        step: rows of a piece.
        like: what dtype and device the pieces get.
    """
    found = []
    for start in range(0, len(cells), step):
        index, weight = cells[start : start + step], weights[start : start + step]
        low, high = int(index.min()), int(index.max()) + 1
        piece = weight.new_zeros(len(index), high - low).scatter_add_(1, index - low, weight)
        same = torch.equal(piece, torch.eye(len(index), dtype=piece.dtype))
        found.append((slice(start, start + len(index)), slice(low, high), None if same else piece.to(like)))
    return found


def along_rows(x: Tensor, piece: Tensor | None) -> Tensor:
    """Each row of ``x`` (C, R, w) resized by a piece (W, w) of the matrix: (C, R, W)."""
    return x if piece is None else product(x.reshape(1, -1, x.shape[2]), piece[None]).view(*x.shape[:2], -1)
