"""Bilinear resizing that aligns corners or does not, as a number says that is known when the file runs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from danseg.ops.exporting import as_data


def exported_resize(x: Tensor, size: Sequence[int], align_corners: int) -> Tensor:
    """``F.interpolate(x, size, mode="bilinear", align_corners=...)`` as a product of matrices on each axis.

    Args:
        x: ``(B, C, h, w)``.
        size: H and W, which an exporter may not know.
        align_corners: 0, 1 or a bool; an exporter may not know it either.
    """
    along_height = _matrix(x, x.shape[2], size[0], align_corners)  # (H, h)
    along_width = _matrix(x, x.shape[3], size[1], align_corners)  # (W, w)
    return torch.matmul(along_height, torch.matmul(x, along_width.transpose(0, 1)))


def _matrix(x: Tensor, length: int, out_length: int, align_corners: int) -> Tensor:
    """The weights (out_length, length) of the cells of ``x`` in each output."""
    index = torch.arange(out_length, device=x.device).to(torch.float32)[:, None]
    # 1 // n is 1 for a single output, which must not divide by 0.
    aligned = index * (length - 1) / (out_length - 1 + 1 // out_length)
    centred = ((index + 0.5) * length / out_length - 0.5).clamp(min=0)
    position = align_corners * aligned + (1 - align_corners) * centred
    cells = torch.arange(length, device=x.device)
    # Past the last cell, its value goes on.
    return (1 - (torch.minimum(position, cells[-1:]) - cells).abs()).clamp(min=0).to(x.dtype)


def exported_grid(factor: int, height: int, width: int) -> tuple[tuple[int, int], Tensor]:
    """The size of a grid ``factor`` times smaller than a map, and whether resizing to it aligns corners.

    That is a number, 0 or 1: 1 where the factor divides neither side.
    """
    sides = torch.stack([torch.scalar_tensor(side, dtype=torch.int64) for side in (height, width)])
    align = (sides % factor != 0).all().long()
    sides = torch.where(align == 1, (sides - 1) // factor + 1, (sides // factor).clamp(min=1))
    rows, columns = as_data(sides[0], sides[1])
    return (rows, columns), align
