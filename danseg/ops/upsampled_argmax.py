"""The best class of every pixel from logits on a coarser grid, without logits at full resolution.

The usual form resizes the logits and takes the argmax. For 19 classes on a 1024 x 2048 frame it writes
160 MB of numbers, which are read once. Bilinear resizing multiplies each axis by a matrix, ``Y L Xᵀ``,
with at most two numbers in a row. Two resizes with a crop between them are such a product as well. Here
small dense pieces of the two matrices compute one tile of the resized logits at a time, and the tile
stays in the caches until its best classes are known.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from danseg.ops.exported_labels import exported_argmax
from danseg.ops.exporting import exporting
from danseg.ops.inputs import energy_dtype
from danseg.ops.interpolation import along_rows, bilinear, pieces
from danseg.ops.operator import operator

# A tile's logits take about this many bytes. On CPUs they stay in the caches between the product and the
# search for its maximum; on GPUs it matters more to launch few kernels.
_TILE_BYTES = 2 * 2**20
_TILE_BYTES_GPU = 64 * 2**20
# Wider tiles multiply with more zeros, narrower ones take more calls.
_TILE_COLUMNS = 128
_TILE_COLUMNS_GPU = 512


def upsampled_argmax(
    logits: Tensor,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    through: Sequence[int] | None = None,
    padding: Sequence[int] = (0, 0, 0, 0),
    threshold: float | None = None,
    rows: Sequence[int] | None = None,
    band: Sequence[int] | None = None,
) -> Tensor:
    """Best class of every pixel after bilinear resizing, in the memory of one tile.

    Equivalent plain code, which holds every class at full resolution (here without ``rows`` and
    ``band``)::

        if through is not None:
            logits = F.interpolate(logits, through, mode="bilinear", align_corners=align_corners)
        left, right, top, bottom = padding
        height, width = logits.shape[2:]
        logits = logits[:, :, top : height - bottom, left : width - right]
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
        labels = logits.argmax(1)  # or logits.sigmoid()[:, 0] > threshold

    The labels equal those of this code wherever the best class leads by more than rounding error, about
    1e-6 of the largest logit in float32. (``F.interpolate`` itself rounds coordinates to float32
    and is off by up to 1e-4 on large maps.) Of equal logits, the first class wins. 16-bit logits are
    resized in float32, also under autocast. An infinite logit counts as a very large number. So does
    NaN, which therefore wins wherever it has a weight, as in ``argmax``. Neither changes pixels in which
    it has no weight. The products obey ``torch.set_float32_matmul_precision``.

    This covers all that mmseg does between a head's logits and labels (``predict_by_feat``,
    ``postprocess_result``): pass the size of the network's input as ``through``, and an image's
    ``padding_size`` and ``ori_shape`` as ``padding`` and ``size``.

    Args:
        logits: ``(B, C, h, w)``, floating point; any strides.
        size: height and width of the labels, H and W; larger or smaller than the logits.
        align_corners: as in :func:`torch.nn.functional.interpolate`, for both resizes.
        through: height and width that the logits are resized to first.
        padding: how many columns to cut off on the left and on the right, and how many rows at the top and
            at the bottom, in the order of :func:`torch.nn.functional.pad`. They are cut off the map of size
            ``through``, or off the logits if there is no ``through``.
        threshold: for a single class: the probability that its sigmoid has to exceed for label 1.
        rows: first and end of the labels' rows to compute; all by default.
        band: ``(first, height)`` when ``logits`` hold only some rows, from ``first`` on, of a map of
            ``height`` rows. They must hold all rows that ``rows`` need, see :func:`rows_needed`.

    Returns:
        ``(B, H, W)``, or only the rows that ``rows`` asks for; uint8 for up to 256 classes, int16 for up
        to 32768, else int32.

    Raises:
        ValueError: when a shape, size or range is wrong; the message names it.
    """
    if exporting() and rows is None and band is None:
        labels = exported_argmax(logits, size, align_corners, through, padding, threshold)
        return labels.to(label_dtype(2 if threshold is not None else int(logits.shape[1])))
    if logits.dim() != 4 or not logits.is_floating_point() or 0 in logits.shape[1:]:
        raise ValueError(
            "upsampled_argmax takes floating-point logits (B, C, h, w) with at least one class and cell, "
            f"got {tuple(logits.shape)} of {logits.dtype}"
        )
    band = (0, logits.shape[2]) if band is None else band
    first, height = band
    if not 0 <= first <= first + logits.shape[2] <= height:
        raise ValueError(
            f"band must be the first row and the height of a map that holds all {logits.shape[2]} rows of "
            f"the logits, got {tuple(band)}"
        )
    size = _positive("size", size)
    through = _positive("through", (height, logits.shape[3]) if through is None else through)
    left, right, top, bottom = padding
    if min(padding) < 0 or left + right >= through[1] or top + bottom >= through[0]:
        raise ValueError(
            f"padding must be left, right, top and bottom, at least 0, and leave something of {through[0]} "
            f"rows and {through[1]} columns, got {tuple(padding)}"
        )
    if threshold is not None and (logits.shape[1] != 1 or not 0 <= threshold <= 1):
        raise ValueError(
            f"threshold is a probability from 0 to 1 and for a single class, got {threshold} and "
            f"{logits.shape[1]} classes"
        )
    rows = (0, size[0]) if rows is None else (int(rows[0]), int(rows[1]))
    if not 0 <= rows[0] < rows[1] <= size[0]:
        raise ValueError(f"rows must be a first and an end with 0 <= first < end <= {size[0]}, got {rows}")
    return _upsampled_argmax(
        logits.detach(), *size, align_corners, *through, *map(int, padding), threshold, *rows, first, height
    )


def rows_needed(
    rows: tuple[int, int],
    height: int,
    out_height: int,
    *,
    align_corners: bool = False,
    through: int | None = None,
    padding: tuple[int, int] = (0, 0),
) -> tuple[int, int]:
    """First and end of the logits' rows that some rows of labels depend on.

    Args:
        rows: first and end of the labels' rows.
        height: rows of the logits, h.
        out_height: rows of the labels, H.
        align_corners, through, padding: as for :func:`upsampled_argmax`, but of the vertical axis alone.
    """
    index = torch.arange(*rows, device="cpu")
    cells, _ = taps(index, height, through or height, padding, out_height, align_corners)
    return int(cells.min()), int(cells.max()) + 1


def _positive(name: str, size: Sequence[int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"{name} must be a height and a width of at least 1, got {tuple(size)}")
    return int(size[0]), int(size[1])


@operator("danseg.ops.upsampled_argmax", "torch.nn.functional.interpolate and argmax")
def _upsampled_argmax(
    logits: Tensor,
    out_height: int,
    out_width: int,
    align_corners: bool,
    through_height: int,
    through_width: int,
    left: int,
    right: int,
    top: int,
    bottom: int,
    threshold: float | None,
    row: int,
    end: int,
    first: int,
    height: int,
) -> Tensor:
    wide = energy_dtype(logits.dtype)
    if threshold is not None:  # label 1 has to beat a constant
        constant = torch.full_like(logits, threshold, dtype=wide).logit_()
        logits = torch.cat([constant, logits.to(wide)], dim=1)
    batch, classes, rows, _ = logits.shape
    labels = logits.new_empty((batch, end - row, out_width), dtype=label_dtype(classes))
    on_cpu = logits.device.type == "cpu"
    vertical, horizontal = tiles(
        logits,
        (out_height, out_width),
        align_corners,
        (through_height, through_width),
        (left, right, top, bottom),
        (row, end),
        (first, height),
    )
    reads = [in_rows for _, in_rows, _ in vertical]
    needed = first + min(one.start for one in reads), first + max(one.stop for one in reads)
    if needed[0] < first or needed[1] > first + rows:
        raise ValueError(
            f"rows {(row, end)} of {out_height} need rows {needed} of {height}, but the logits hold "
            f"{(first, first + rows)}"
        )
    # Earlier classes have higher ranks, so that the first of equal logits wins.
    ranks = torch.arange(classes - 1, -1, -1, dtype=wide, device=logits.device).view(-1, 1, 1)
    huge = torch.finfo(wide).max / 4
    with torch.autocast(logits.device.type, enabled=False):
        for image, image_labels in zip(logits, labels, strict=True):
            for out_rows, in_rows, along_y in vertical:
                for out_columns, in_columns, along_x in horizontal:
                    # An infinite cell, or NaN, would spread over the tile, because 0 · inf is NaN.
                    cells = image[:, in_rows, in_columns].to(wide).nan_to_num(huge, huge, -huge)
                    tile = cells if along_y is None else along_y @ cells  # (C, R, k)
                    tile = along_rows(tile, along_x)  # (C, R, S)
                    if on_cpu:  # where argmax over a dim that is not the last takes several times as long
                        best = classes - 1 - tile.eq_(tile.amax(0)).mul_(ranks).amax(0)
                    else:
                        best = tile.argmax(0)
                    image_labels[out_rows, out_columns] = best
    return labels


@_upsampled_argmax.register_fake
def _(logits, out_height, out_width, *args):
    threshold, row, end = args[-5:-2]
    classes = logits.shape[1] if threshold is None else 2
    return logits.new_empty((logits.shape[0], end - row, out_width), dtype=label_dtype(classes))


def tiles(
    logits: Tensor,
    size: Sequence[int],
    align_corners: bool,
    through: Sequence[int],
    padding: Sequence[int],
    rows: tuple[int, int],
    band: tuple[int, int],
) -> tuple[list, list]:
    """The pieces of both matrices, whose products with ``logits``, (..., C, h, w), are tiles of resized ones.

    Args:
        logits, size, align_corners, through, padding, rows, band: as for :func:`upsampled_argmax`.

    Returns:
        Those along the height and along the width, as :func:`danseg.ops.interpolation.pieces` gives them.
    """
    wide = energy_dtype(logits.dtype)
    on_cpu = logits.device.type == "cpu"
    columns = min(_TILE_COLUMNS if on_cpu else _TILE_COLUMNS_GPU, size[1])
    tile_bytes = _TILE_BYTES if on_cpu else _TILE_BYTES_GPU
    tile_rows = max(1, tile_bytes // (logits.shape[-3] * columns * wide.itemsize))
    first, height = band
    left, right, top, bottom = padding

    def along_height(index: Tensor) -> tuple[Tensor, Tensor]:
        cells, weights = taps(index, height, through[0], (top, bottom), size[0], align_corners)
        return cells - first, weights

    def along_width(index: Tensor) -> tuple[Tensor, Tensor]:
        return taps(index, logits.shape[-1], through[1], (left, right), size[1], align_corners)

    like = logits.new_empty((), dtype=wide)
    return pieces(along_height, rows, tile_rows, like), pieces(along_width, (0, size[1]), columns, like)


def label_dtype(classes: int) -> torch.dtype:
    return next(t for t in (torch.uint8, torch.int16, torch.int32) if classes - 1 <= torch.iinfo(t).max)


def taps(
    index: Tensor,
    length: int,
    through: int,
    padding: tuple[int, int],
    out_length: int,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """The four cells and weights (n, 4) of outputs ``index`` (n,), through both resizes."""
    outer, outer_weights = bilinear(index, through - sum(padding), out_length, align_corners)
    inner, inner_weights = bilinear(outer + padding[0], length, through, align_corners)
    return inner.flatten(1), (inner_weights * outer_weights[..., None]).flatten(1)
