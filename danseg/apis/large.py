"""Segment an image of any size tile by tile, from file to file."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmseg.models import BaseSegmentor, EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import TRANSFORMS
from torch import Tensor

from danseg.apis.geotiff import BLOCK, created_geotiff, require_place
from danseg.apis.model import tested_dataset
from danseg.apis.predict import require_channels
from danseg.apis.raster_rows import STRICT, RowReader, import_rasterio, opened
from danseg.datasets.loading import loading_step
from danseg.engine.config.options import without_labels
from danseg.engine.config.type_names import type_name
from danseg.errors import UserError
from danseg.io.parallel import progress_bar
from danseg.io.source_files import fault
from danseg.ops.upsampled_argmax import label_dtype, rows_needed, upsampled_argmax
from danseg.segmentors import head_logits, require_eval_mode

# Size of GDAL's cache for source and destination, in MiB. GDAL's default is a twentieth of the memory.
_CACHE_MIB = 64
# Steps of a test pipeline: left out, because tiles have the image's own resolution; done on rows of pixels.
_LEFT_OUT = ("PackSegInputs", "Pad", "Resize", "ResizeShortestEdge", "ResizeToMultiple")
_BY_ROWS = ("Normalize",)


class _Span(NamedTuple):
    """The part of one axis that a tile covers."""

    start: int  # first pixel
    end: int  # after the last pixel
    cell: int  # first cell of logits
    weights: Tensor  # weight of each of its cells; in every cell the weights of all tiles sum to 1


@torch.no_grad()
def predict_large(
    model: BaseSegmentor,
    source: str | Path,
    destination: str | Path,
    *,
    tile: int = 1024,
    overlap: int = 256,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Segment an image that is too large for the network or for memory, from a file into a GeoTIFF.

    The network sees overlapping tiles at the image's own resolution. The test mode of the config and the
    resizing in its test pipeline are not used. Tiles start at multiples of the network's output stride, so
    that the logits of all tiles lie on one grid. Where tiles overlap, their logits are blended: in the middle
    half of the overlap one tile fades into the next. A quarter at each side, where one of the tiles lacks its
    surroundings, comes from the other tile alone. A network that sees no farther than a quarter of the
    overlap therefore gives the same labels as for the whole image. As in mmseg's sliding windows, logits are
    blended, not probabilities. The blended logits are then upsampled as one map.

    Memory does not grow with the image's height. It holds the pixels and the logits of one row of tiles
    across the image, and one tile's pass through the network. The source is read once from top to bottom.
    JPEG, WebP and the like, palettes, samples of less than 8 bits and pictures that an EXIF orientation
    turns are held in memory, because the test pipeline's own loading reads them. For files without a place
    on a map rasterio warns that they have no georeferencing; hiding that here would change the warnings of
    all threads.

    Pixels are those that the test pipeline loads, as in :func:`danseg.apis.predict`: turned by an EXIF
    orientation, and refused if they have more bits than the pipeline keeps. In a TIFF that JPEG compresses,
    coloured edges may differ by a dozen levels from the pipeline's, because GDAL decodes them.

    Args:
        model: from :func:`load_model` or :func:`prepare_for_inference`, an ``EncoderDecoder`` with one
            decode head.
        source: any raster that GDAL reads (GeoTIFF, PNG, JPEG, ...) with the bands that the pipeline loads:
            for its usual step, 8 bits of red, green and blue, or grey; alpha is dropped. A nodata value has
            no effect.
        destination: file for the labels, ``.tif``: one band of class ids (8 bits for up to 256 classes),
            tiled and compressed, with the source's georeferencing. It is written whole or not at all.
        tile: side of a tile in pixels, a multiple of the network's output stride. A larger tile shows the
            network more surroundings and takes more memory.
        overlap: smallest number of pixels that neighbouring tiles share, at most half a tile.
        overwrite: whether to replace an existing destination.
        progress: whether to draw a progress bar on stderr, if that is a terminal.

    Returns:
        The destination.

    Raises:
        UserError: rasterio is not installed, the source is damaged or has other bands or bits than the
            pipeline loads, the destination exists or cannot be written, the network cannot run on such tiles,
            or the test pipeline has a step that needs the whole image.
        ValueError: the model is in training mode.
    """
    source, destination = Path(source), Path(destination)
    _check_network(model, tile, overlap)
    _check_paths(source, destination, overwrite)
    loader, normalise = _steps(model)
    settings = dict(STRICT, GDAL_CACHEMAX=_CACHE_MIB)
    with import_rasterio().Env(**settings), opened(source) as image, progress_bar(progress) as bar:
        band = RowReader(image, source, loader, normalise)
        size = band.size
        require_place(image, band.turned, source)
        # The first tile shows the number of classes and the network's output stride.
        first = band.read(0, min(tile, size[0]))[:, :, :tile]
        require_channels(model, len(first), loader, source)
        logits = _logits(model, first)
        classes, *cells = logits.shape
        rows, columns = (_spans(*each, tile, overlap) for each in zip(size, cells, strict=True))
        task = bar.add_task(source.name, total=len(rows) * len(columns))
        single = classes == 1
        kind = label_dtype(2 if single else classes)
        with created_geotiff(destination, image, size, kind, overwrite) as write:
            labels = _Blend(logits, rows, columns, size, model.decode_head, write)
            for down, below in zip(rows, [*rows[1:], None], strict=True):
                pixels = band.read(down.start, down.end)
                for across in columns:
                    if down.start or across.start:
                        logits = _logits(model, pixels[:, :, across.start : across.end])
                    labels.add(logits, down, across)
                    bar.advance(task)
                labels.finish(below)
    return destination


def _check_network(model: BaseSegmentor, tile: int, overlap: int) -> None:
    if not isinstance(model, EncoderDecoder) or not isinstance(model.decode_head, BaseDecodeHead):
        raise UserError(
            f"{type(model).__name__} cannot run by tiles, whose logits have to come from one decode head; "
            "mmseg's EncoderDecoder can"
        )
    require_eval_mode(model)
    if tile < 1:
        raise UserError(f"tile must be the side of a tile in pixels, at least 1, got {tile}")
    if not 0 <= overlap <= tile // 2:
        raise UserError(f"overlap must be from 0 to half a tile, {tile // 2} pixels, got {overlap}")


def _check_paths(source: Path, destination: Path, overwrite: bool) -> None:
    why = fault(source)
    if why is not None:
        raise UserError(f"image {source} cannot be read: {why}")
    if destination.suffix.lower() not in (".tif", ".tiff"):
        raise UserError(f"labels are written as GeoTIFF, so name a file that ends in .tif, not {destination}")
    if not destination.parent.is_dir():
        raise UserError(f"the folder of {destination} does not exist; make it or name another one")
    if destination.exists():
        if not destination.is_file():
            raise UserError(f"{destination} is not a file; name another destination")
        if destination.samefile(source):
            raise UserError(f"{destination} is the image itself; name another destination")
        if not overwrite:
            raise UserError(f"{destination} exists; name another destination or ask for it to be overwritten")


def _steps(model: BaseSegmentor) -> tuple[Any, Callable[[np.ndarray], np.ndarray]]:
    """The step that loads images, and what the test pipeline then does to pixels (H, W, C)."""
    first, *steps = without_labels(tested_dataset(model.cfg)["pipeline"])
    names = [type_name(step) for step in steps]
    other = [name for name in names if name not in _LEFT_OUT + _BY_ROWS]
    if other:
        raise UserError(
            f"{other[0]} of the test pipeline is not done by tiles, so that labels would differ from those "
            "of whole images; predict whole images, or train without it"
        )
    done = [TRANSFORMS.build(step) for step, name in zip(steps, names, strict=True) if name in _BY_ROWS]

    def normalise(pixels: np.ndarray) -> np.ndarray:
        results = dict(img=pixels)
        for step in done:
            results = step(results)
        return results["img"]

    return loading_step([first]), normalise


def _logits(model: BaseSegmentor, pixels: np.ndarray) -> Tensor:
    """The head's logits (C, h, w) for pixels (channels, H, W) of a loaded image, in at least float32."""
    preprocessor = copy.copy(model.data_preprocessor)
    preprocessor.test_cfg = None  # no padding: it would change the labels at the image's edges
    data = preprocessor(dict(inputs=[torch.from_numpy(np.ascontiguousarray(pixels))]), training=False)
    [logits] = head_logits(model, data["inputs"])
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _spans(length: int, cells: int, tile: int, overlap: int) -> list[_Span]:
    """Tiles along one axis, evenly spread, each of them inside the image.

    Args:
        length: length of the axis in pixels.
        cells: number of logits that the network makes from ``tile`` pixels, or from ``length`` pixels if
            that is less.
        tile, overlap: in pixels.
    """
    if length <= tile:
        return [_Span(0, length, 0, torch.ones(cells))]
    stride, rest = divmod(tile, cells)
    if rest:
        raise UserError(
            f"tile must be a multiple of the network's output stride, but the network makes {cells} logits "
            f"of {tile} pixels; 512 and 1024 suit nearly all networks"
        )
    total, shared = -(-length // stride), -(-overlap // stride)  # rounded up
    if shared >= cells:
        raise UserError(
            f"tile {tile} is too small: the network makes {cells} logits of it; name a larger one"
        )
    count = -(-(total - shared) // (cells - shared))
    edge = shared // 4
    ramp = ((torch.arange(cells) + 0.5 - edge) / max(1, shared - 2 * edge)).clamp(0, 1)
    firsts = [i * (total - cells) // (count - 1) for i in range(count)]
    weights = torch.ones(count, cells)
    weights[1:] *= ramp
    weights[:-1] *= ramp.flip(0)
    sums = torch.zeros(total)
    for first, weight in zip(firsts, weights, strict=True):
        sums[first : first + cells] += weight
    return [
        _Span(first * stride, min(length, (first + cells) * stride), first, w / sums[first : first + cells])
        for first, w in zip(firsts, weights, strict=True)
    ]


class _Blend:
    """Blends the tiles' logits on the grid of the whole image, and keeps only unfinished rows of it.

    Args:
        like: logits of one tile (C, h, w), for their type and device.
        rows, columns: the tiles along each axis.
        size: the image's height and width.
        head: the model's decode head.
        write: is called with rows of labels (n, W) and the number of the first row.
    """

    def __init__(
        self,
        like: Tensor,
        rows: Sequence[_Span],
        columns: Sequence[_Span],
        size: tuple[int, int],
        head: BaseDecodeHead,
        write: Callable[[np.ndarray, int], None],
    ) -> None:
        self.size = size
        self.align_corners = head.align_corners
        self.threshold = head.threshold if len(like) == 1 else None
        self.write = write
        self.height, width = (each[-1].cell + len(each[-1].weights) for each in (rows, columns))
        self.first = 0  # first row of the grid in the band
        self.band = like.new_empty(len(like), 0, width)
        self.written = 0  # number of rows of labels written

    def add(self, logits: Tensor, down: _Span, across: _Span) -> None:
        """Add a tile's logits (C, h, w) to the blend."""
        expected = len(down.weights), len(across.weights)
        if logits.shape[1:] != expected:
            raise UserError(
                f"the network makes {tuple(logits.shape[1:])} logits of a tile of {down.end - down.start} x "
                f"{across.end - across.start} pixels, not {expected} as its output stride implies; it cannot "
                "run by tiles"
            )
        missing = down.cell + len(down.weights) - self.first - self.band.shape[1]
        if missing > 0:
            self.band = torch.cat(
                [self.band, self.band.new_zeros(len(logits), missing, self.band.shape[2])], 1
            )
        weights = (down.weights[:, None] * across.weights).to(logits)
        top, left = down.cell - self.first, across.cell
        self.band[:, top : top + expected[0], left : left + expected[1]] += logits * weights

    def finish(self, below: _Span | None) -> None:
        """Write the labels that the tiles from ``below`` on cannot change any more, and drop their logits."""
        height = self.size[0]
        end = height
        if below is not None:
            end = below.start // BLOCK * BLOCK  # whole rows of the file's tiles, so each is compressed once
            while end > self.written and self._needed(end - 1)[1] > below.cell:
                end -= BLOCK
        for row in range(self.written, end, BLOCK):
            labels = upsampled_argmax(
                self.band[None],
                self.size,
                align_corners=self.align_corners,
                threshold=self.threshold,
                rows=(row, min(row + BLOCK, end)),
                band=(self.first, self.height),
            )
            self.write(labels[0].cpu().numpy(), row)
        self.written = max(self.written, end)
        if below is not None:
            first = min(below.cell, self._needed(self.written)[0])
            self.band = self.band[:, first - self.first :].clone()
            self.first = first

    def _needed(self, row: int) -> tuple[int, int]:
        return rows_needed((row, row + 1), self.height, self.size[0], align_corners=self.align_corners)
