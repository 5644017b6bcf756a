"""Bilinear resizing as a matrix product on each axis, with the matrix cut into small dense pieces.

Along an axis, each output depends on at most two input cells. A block of outputs therefore reads a short
range of cells, and a small dense piece of the matrix computes it. The transposed piece computes the
gradient. Positions are computed in float64. (``F.interpolate`` rounds them to float32 and is off by up to
1e-4 on large maps.)
"""

import torch
from torch import Tensor

from danseg.ops.products import product


def bilinear(index: Tensor, length: int, out_length: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """The two input cells, and their weights, that each output ``index`` of one resize depends on.

    Args:
        index: (...) output indices, whole numbers from 0 to ``out_length - 1``.
        length: number of cells along the axis before resizing.
        out_length: number of cells after it.
        align_corners: as in :func:`torch.nn.functional.interpolate`.

    Returns:
        The cells (..., 2) and their weights (..., 2).
    """
    if align_corners:
        position = index.double() * ((length - 1) / max(1, out_length - 1))
    else:
        position = ((index + 0.5).double() * length / out_length - 0.5).clamp(min=0)
    cell = position.floor().long().clamp(max=length - 1)
    rest = position - cell
    # Where the second cell would have weight 0, the first one is repeated, so that no other cell is read.
    following = (cell + (rest > 0)).clamp(max=length - 1)
    return torch.stack([cell, following], -1), torch.stack([1 - rest, rest], -1)


def pieces(
    cells: Tensor, weights: Tensor, step: int, like: Tensor
) -> list[tuple[slice, slice, Tensor | None]]:
    """Cut the matrix of one axis into dense pieces of ``step`` rows.

    Args:
        cells: (n, t) the cells that each output depends on, on the CPU.
        weights: (n, t) their weights, on the CPU.
        step: rows of a piece.
        like: a tensor of the dtype and on the device that the pieces get.

    Returns:
        For each piece: its outputs, the cells that they read, and the piece itself. The piece is None where
        it would change nothing, as with logits that have their final size already.
    """
    found = []
    for start in range(0, len(cells), step):
        index, weight = cells[start : start + step], weights[start : start + step]
        low, high = int(index.min()), int(index.max()) + 1
        piece = weight.new_zeros(len(index), high - low).scatter_add_(1, index - low, weight)
        same = torch.equal(piece, torch.eye(len(index), dtype=piece.dtype, device=piece.device))
        dense = None if same else _sent(piece, like)
        found.append((slice(start, start + len(index)), slice(low, high), dense))
    return found


def _sent(piece: Tensor, like: Tensor) -> Tensor:
    """The piece in the dtype and on the device of ``like``; the CPU does not wait for a GPU to take it."""
    piece = piece.to(like.dtype)
    # A graph would read the pinned memory again at each replay, when it has long been used for other things.
    # Without pinned memory PyTorch waits, which it refuses while it captures a graph.
    if like.is_cuda and not torch.cuda.is_current_stream_capturing():
        return piece.pin_memory().to(like.device, non_blocking=True)
    return piece.to(like.device)


def along_rows(x: Tensor, piece: Tensor | None) -> Tensor:
    """Resize each row of ``x`` (C, R, w) with a piece (W, w) of the matrix, to (C, R, W)."""
    return x if piece is None else product(x.reshape(1, -1, x.shape[2]), piece[None]).view(*x.shape[:2], -1)
