"""The probability of every pixel's best class from logits on a coarser grid, in the memory of one tile.

The tiles are those of :mod:`danseg.ops.upsampled_argmax`, which has the reasons.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from danseg.ops.exported_labels import exported_confidence
from danseg.ops.exporting import exporting
from danseg.ops.inputs import energy_dtype
from danseg.ops.interpolation import along_rows
from danseg.ops.upsampled_argmax import tiles


@torch.no_grad()
def upsampled_confidence(
    logits: Tensor,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    through: Sequence[int] | None = None,
    padding: Sequence[int] = (0, 0, 0, 0),
    threshold: float | None = None,
) -> Tensor:
    """Probability of each pixel's label after bilinear resizing.

    Equivalent plain code, which holds every class at full resolution, after the two resizes of
    :func:`danseg.ops.upsampled_argmax`::

        confidence = logits.softmax(1).amax(1)
        # with a threshold: p = logits.sigmoid()[:, 0]; torch.where(p > threshold, p, 1 - p)

    Args:
        logits: ``(C, h, w)``, floating point.
        size, align_corners, through, padding, threshold: as for :func:`danseg.ops.upsampled_argmax`.

    Returns:
        ``(H, W)``, from 0 to 1, float32, or float64 for logits of that type.
    """
    if exporting():
        return exported_confidence(logits, size, align_corners, through, padding, threshold)
    wide = energy_dtype(logits.dtype)
    shape = logits.shape[1:]
    through = shape if through is None else through
    rows, band = (0, size[0]), (0, shape[0])
    vertical, horizontal = tiles(logits, size, align_corners, through, padding, rows, band)
    confidences = logits.new_empty(tuple(size), dtype=wide)
    with torch.autocast(logits.device.type, enabled=False):
        for out_rows, in_rows, along_y in vertical:
            for out_columns, in_columns, along_x in horizontal:
                cells = logits[:, in_rows, in_columns].to(wide)
                tile = along_rows(cells if along_y is None else along_y @ cells, along_x)  # (C, R, S)
                confidences[out_rows, out_columns] = _confidence(tile, threshold)
    return confidences


def _confidence(logits: Tensor, threshold: float | None) -> Tensor:
    if threshold is None:
        return (logits - logits.amax(0)).exp().sum(0).reciprocal()  # (C, R, S) -> (R, S)
    probability = logits[0].sigmoid()
    return torch.where(probability > threshold, probability, 1 - probability)
