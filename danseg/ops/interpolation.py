"""Bilinear resizing as a matrix product on each axis, with the matrix cut into small dense pieces.

Along an axis, each output depends on at most two input cells. A block of outputs therefore reads a short
range of cells, and a small dense piece of the matrix computes it. The transposed piece computes the
gradient. Positions are computed in float64. (``F.interpolate`` rounds them to float32 and is off by up to
1e-4 on large maps.)
"""

from collections.abc import Callable

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
    taps: Callable[[Tensor], tuple[Tensor, Tensor]], span: tuple[int, int], step: int, like: Tensor
) -> list[tuple[slice, slice, Tensor | None]]:
    """Cut the matrix of one axis into dense pieces of ``step`` rows.

    Args:
        taps: gives the cells (n, t) that outputs ``index`` (n,) depend on, and their weights (n, t).
        span: first and end of the outputs.
        step: rows of a piece.
        like: a tensor of the dtype and on the device that the pieces get.

    Returns:
        For each piece: its outputs, counted from the first one, the cells that they read, and the piece
        itself. The piece is None where it would change nothing, as with logits that have their final size
        already.
    """
    cells, weights = taps(torch.arange(*span, device="cpu"))
    # Slices need numbers on the host. The pieces are computed again where they are used: a copy to a GPU
    # would wait for all of its work, and could not be captured in a CUDA graph.
    there = (cells, weights) if like.device.type == "cpu" else taps(torch.arange(*span, device=like.device))
    found = []
    for start in range(0, len(cells), step):
        outputs = slice(start, min(start + step, len(cells)))
        low, high = int(cells[outputs].min()), int(cells[outputs].max()) + 1
        piece = None
        if not _is_identity(cells[outputs] - low, weights[outputs], high - low):
            piece = _dense(there[0][outputs] - low, there[1][outputs], high - low).to(like)
        found.append((outputs, slice(low, high), piece))
    return found


def _dense(cells: Tensor, weights: Tensor, width: int) -> Tensor:
    """The matrix (n, width) with ``weights`` (n, t) at ``cells`` (n, t)."""
    return weights.new_zeros(len(cells), width).scatter_add_(1, cells, weights)


def _is_identity(cells: Tensor, weights: Tensor, width: int) -> bool:
    if len(cells) != width:
        return False
    identity = torch.eye(width, dtype=weights.dtype, device=weights.device)
    return torch.equal(_dense(cells, weights, width), identity)


def along_rows(x: Tensor, piece: Tensor | None) -> Tensor:
    """Resize each row of ``x`` (C, R, w) with a piece (W, w) of the matrix, to (C, R, W)."""
    return x if piece is None else product(x.reshape(1, -1, x.shape[2]), piece[None]).view(*x.shape[:2], -1)
