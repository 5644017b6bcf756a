"""3x3 convolutions by Winograd's algorithm: a quarter of the multiplications, exact up to rounding.

Winograd, "Arithmetic Complexity of Computations", SIAM 1980; Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016, arXiv 1509.09308.

A tile of 4x4 outputs depends on 6x6 inputs. On each axis, its inputs and the 3 weights stand for polynomials,
which are evaluated at 6 points, multiplied there and interpolated back: F(4x4, 3x3). Over the channels, these
are 36 matrix products where the convolution has 144. A dilated convolution is a plain one on each of its
interleaved grids.

The points decide about rounding. With 0, ±1, ±2 and infinity, which are usual, errors are four times as large
as with 0, ±2/3, ±3/2 and infinity. Those make for simple arithmetic, which is not needed here: tiles are
transformed by matrix products.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product as product_of

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.utils.flop_counter import register_flop_formula

from danseg.ops.blocks import cached_bytes
from danseg.ops.exporting import exporting
from danseg.ops.inputs import check_alike, without_autocast
from danseg.ops.operator import differentiated, operator
from danseg.ops.products import product

_NAMES = "danseg.ops.winograd_convolution", "torch.nn.functional.conv2d"
_TILE, _REACH = 4, 6  # outputs and inputs of a tile on each axis
POINTS = _REACH**2
_EVALUATED_AT = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)  # and infinity
# Evaluated tiles and products of one block: many tiles for each time that the weights are read, and not much
# memory beside those.
_BLOCK_BYTES = 48 * 2**20
_FEWEST_TILES = 64


@cache
def _matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What evaluates inputs (36, 36) and weights (36, 9), and interpolates outputs (16, 36).

    With V the Vandermonde matrix of all points, a product of polynomials with coefficients g and d is
    V⁻¹ ((V g) ∘ (V d)). The transposed of this bilinear map is the convolution, so V⁻ᵀ evaluates the inputs.
    """

    def evaluated(coefficients: int) -> Tensor:
        powers = torch.arange(coefficients, dtype=torch.float64)
        rows = torch.tensor(_EVALUATED_AT, dtype=torch.float64)[:, None] ** powers
        return torch.cat([rows, torch.eye(coefficients, dtype=torch.float64)[-1:]])

    inputs, weights, outputs = evaluated(_REACH).inverse().T, evaluated(3), evaluated(_TILE).T
    # Contiguous: what else uses them may be compiled.
    return tuple(torch.kron(m, m).to(dtype).contiguous() for m in (inputs, weights, outputs))  # type: ignore[return-value]


def evaluated_weights(weight: Tensor, out: Tensor | None = None) -> Tensor:
    """The weights (K, C, 3, 3) of a convolution as :func:`winograd_convolution` takes them: (36, K, C).

    Args:
        weight: floating point. It is read as it lies in memory if that is in the order (3, 3, K, C).
        out: where to write them, of that shape, contiguous; writing to memory that is in use already takes a
            quarter of the time.

    Raises:
        ValueError: the weights are no floating-point (K, C, 3, 3).
    """
    if weight.dim() != 4 or weight.shape[2:] != (3, 3) or not weight.is_floating_point():
        raise ValueError(
            f"evaluated_weights takes floating-point weights (K, C, 3, 3) of a 3x3 convolution, got "
            f"{tuple(weight.shape)} of {weight.dtype}"
        )
    _, weights, _ = _matrices(weight.dtype)
    with torch.no_grad(), without_autocast(weight):
        taps = weight.permute(2, 3, 0, 1).flatten(2).flatten(0, 1)  # (9, K C)
        made = torch.mm(weights.to(weight.device), taps, out=None if out is None else out.flatten(1))
        return made.unflatten(1, weight.shape[:2])


def winograd_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    evaluated: Tensor,
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> Tensor:
    """``conv2d(x, weight, bias, padding=padding, dilation=dilation)`` for 3x3 weights, in less time on CPUs.

    In float32 the largest error is some 2e-6 of the largest output, five times that of a direct convolution.
    It does not grow with the channels or the map.

    It is PyTorch's own convolution while a model is exported, where a derivative is asked for, and for what
    is not float32 or float64 on a CPU.

    Args:
        x: ``(B, C, H, W)``. Channels last saves a copy.
        weight: ``(K, C, 3, 3)``, same dtype and device.
        bias: ``(K,)``, same dtype and device.
        evaluated: :func:`evaluated_weights` of the weight.
        padding: zeros on each side in height and width.
        dilation: distance of the taps in height and width.

    Returns:
        ``(B, K, H', W')`` with channels last in memory.

    Raises:
        ValueError: shapes, dtypes or devices do not match.
    """
    if not exporting():
        _check(x, weight, evaluated)
    taken = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if exporting() or not taken or differentiated(x, weight, bias):
        with without_autocast(x):
            return conv2d(x, weight, bias, padding=padding, dilation=dilation)
    by_position = x.permute(0, 2, 3, 1).contiguous()
    return _winograd_forward(by_position, evaluated, bias, list(padding), list(dilation)).permute(0, 3, 1, 2)


def _check(x: Tensor, weight: Tensor, evaluated: Tensor) -> None:
    out_channels, in_channels, *kernel = weight.shape
    if x.dim() != 4 or x.shape[1] != in_channels or kernel != [3, 3]:
        raise ValueError(
            f"winograd_convolution takes x (B, C, H, W) and weight (K, C, 3, 3), got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    if evaluated.shape != (POINTS, out_channels, in_channels):
        raise ValueError(
            f"winograd_convolution takes evaluated_weights(weight), {POINTS, out_channels, in_channels} for "
            f"weights of {tuple(weight.shape)}, got {tuple(evaluated.shape)}"
        )
    check_alike("winograd_convolution", x=x, weight=weight, evaluated=evaluated)


def _out_size(size: int, padding: int, dilation: int) -> int:
    return max(0, size + 2 * padding - 2 * dilation)


def _tiles(size: int, dilation: int) -> int:
    """How many tiles cover one interleaved grid of ``size`` outputs, on one axis."""
    return math.ceil(math.ceil(size / dilation) / _TILE)


@dataclass(frozen=True)
class _Strip:
    """Tiles side by side of one interleaved grid.

    Attributes:
        row, column: of the grid's first position.
        tile_row: which row of tiles in the grid.
        first, count: which tiles of that row.
    """

    row: int
    column: int
    tile_row: int
    first: int
    count: int


def _blocks(
    grids: Sequence[int], tiles: tuple[int, int], longest: int, capacity: int
) -> Iterator[list[_Strip]]:
    """All tiles, row by row: strips of at most ``longest`` tiles, in blocks of at most ``capacity``."""
    block: list[_Strip] = []
    filled = 0
    for row, tile_row, column in product_of(range(grids[0]), range(tiles[0]), range(grids[1])):
        for first in range(0, tiles[1], longest):
            count = min(longest, tiles[1] - first)
            if filled + count > capacity:
                yield block
                block, filled = [], 0
            block.append(_Strip(row, column, tile_row, first, count))
            filled += count
    yield block


@operator(*_NAMES)
def _winograd_forward(
    x: Tensor, evaluated: Tensor, bias: Tensor | None, padding: list[int], dilation: list[int]
) -> Tensor:
    """Output (B, H', W', K) of x (B, H, W, C)."""
    batch, height, width, channels = x.shape
    out_channels = evaluated.shape[1]
    size = [_out_size(n, p, d) for n, p, d in zip((height, width), padding, dilation, strict=True)]
    out = x.new_empty(batch, *size, out_channels)
    if 0 in out.shape:
        return out
    down, across = dilation
    rows, columns = (_tiles(n, d) for n, d in zip(size, dilation, strict=True))
    inputs, _, outputs = _matrices(x.dtype)
    whole = [down * _TILE * rows, across * _TILE * columns]  # sides of whole tiles
    room = None if whole == size else x.new_empty(*whole, out_channels)
    per_tile = POINTS * x.itemsize
    longest = min(columns, max(1, cached_bytes(x.device) // (per_tile * channels)))
    capacity = max(_FEWEST_TILES, _BLOCK_BYTES // (per_tile * (channels + out_channels)), longest)
    capacity = min(capacity, rows * columns * down * across)
    points = x.new_empty(POINTS, capacity * channels)
    products = x.new_empty(POINTS, capacity * out_channels)
    # The input's rows of one row of tiles, with zeros around and beyond the image.
    band = x.new_zeros(_REACH, across * (_TILE * columns + 2) + padding[1], channels)
    with torch.autocast("cpu", enabled=False):
        for image, result in zip(x, out, strict=True):
            target = result if room is None else room
            there = None
            for block in _blocks(dilation, (rows, columns), longest, capacity):
                filled = 0
                for strip in block:
                    if there != (strip.row, strip.tile_row):
                        there = strip.row, strip.tile_row
                        _read_band(band, image, strip.row + down * _TILE * strip.tile_row, padding, down)
                    tiles = _tiles_of(band, _REACH, 1, across, strip.column, strip)
                    at = slice(filled * channels, (filled + strip.count) * channels)
                    torch.mm(inputs, tiles.reshape(POINTS, -1), out=points[:, at])
                    filled += strip.count
                for point in range(POINTS):
                    of_tiles = points[point, : filled * channels].view(1, filled, channels)
                    done = product(of_tiles, evaluated[point][None])
                    products[point, : filled * out_channels].view(1, filled, out_channels).copy_(done)
                made = torch.mm(outputs, products[:, : filled * out_channels])
                made = made.view(_TILE, _TILE, filled, out_channels)
                filled = 0
                for strip in block:
                    start = (strip.row + down * _TILE * strip.tile_row) * whole[1] + strip.column
                    tiles = _tiles_of(target, _TILE, down, across, start, strip)
                    part = made[:, :, filled : filled + strip.count]
                    if bias is None:
                        tiles.copy_(part)
                    else:
                        torch.add(part, bias, out=tiles)
                    filled += strip.count
            if room is not None:
                result.copy_(room[: size[0], : size[1]])
    return out


def _read_band(band: Tensor, image: Tensor, first: int, padding: list[int], down: int) -> None:
    """Copy the rows that a row of tiles reads: from row ``first`` of the padded image on, ``down`` apart."""
    height, width, _ = image.shape
    for index, row in enumerate(range(first - padding[0], first - padding[0] + down * _REACH, down)):
        inside = band[index, padding[1] : padding[1] + width]
        if 0 <= row < height:
            inside.copy_(image[row])
        else:
            inside.zero_()


def _tiles_of(x: Tensor, side: int, down: int, across: int, start: int, strip: _Strip) -> Tensor:
    """A strip's tiles (side, side, count, channels) in x (H, W, channels).

    Args:
        x: contiguous.
        side: of the tiles.
        down, across: distance of a tile's positions.
        start: index of the first position of the row of tiles.
        strip: which of its tiles.
    """
    _, width, channels = x.shape
    strides = down * width * channels, across * channels, across * _TILE * channels, 1
    offset = x.storage_offset() + (start + across * _TILE * strip.first) * channels
    return x.as_strided((side, side, strip.count, channels), strides, offset)


@_winograd_forward.register_fake
def _(x, evaluated, bias, padding, dilation):
    size = [n + 2 * p - 2 * d for n, p, d in zip(x.shape[1:3], padding, dilation, strict=True)]
    return x.new_empty(x.shape[0], *size, evaluated.shape[1])


@register_flop_formula(torch.ops.danseg.winograd_forward)
def _forward_flops(x_shape, evaluated_shape, bias_shape, padding, dilation, *_args, **_kwargs) -> int:
    batch, *size, channels = x_shape
    sides = [d * _tiles(_out_size(n, p, d), d) for n, p, d in zip(size, padding, dilation, strict=True)]
    tiles = batch * math.prod(sides)
    points, out_channels, _ = evaluated_shape
    transforms = points * channels + _TILE**2 * out_channels
    return 2 * tiles * points * (channels * out_channels + transforms)
