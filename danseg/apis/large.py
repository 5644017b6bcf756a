"""Segment an image of any size tile by tile, from file to file."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmseg.models import BaseSegmentor, EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from danseg.errors import UserError
from danseg.io.files import whole_file
from danseg.io.parallel import progress_bar
from danseg.ops.upsampled_argmax import label_dtype, rows_needed, upsampled_argmax
from danseg.segmentors import head_logits, require_eval_mode

# Side of the tiles that the destination file stores, in pixels. Whole rows of them are written at once.
_BLOCK = 512
# Size of GDAL's cache for source and destination, in MiB. GDAL's default is a twentieth of the memory.
_CACHE_MIB = 64


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
    across the image, and one tile's pass through the network. The source is read once from top to bottom,
    which also works for PNG and JPEG. For those rasterio warns that they have no georeferencing; hiding that
    here would change the warnings of all threads.

    Args:
        model: from :func:`load_model` or :func:`prepare_for_inference`, an ``EncoderDecoder`` with one
            decode head.
        source: any raster that GDAL reads (GeoTIFF, PNG, JPEG, ...) with three 8-bit bands, red, green and
            blue. A fourth band, alpha, is ignored. Pixels are used as they are stored: an orientation tag or
            a nodata value has no effect.
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
        UserError: rasterio is not installed, the source cannot be read or has other bands, the destination
            exists or cannot be written, or the network cannot run on such tiles.
        ValueError: the model is in training mode.
    """
    source, destination = Path(source), Path(destination)
    _check_network(model, tile, overlap)
    _check_paths(source, destination, overwrite)
    rasterio = _rasterio()
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MIB), _opened(source) as image, progress_bar(progress) as bar:
        band = _RowReader(image, source)
        size = image.height, image.width
        # The first tile shows the number of classes and the network's output stride.
        logits = _logits(model, band.read(0, min(tile, size[0]))[:, :, :tile])
        classes, *cells = logits.shape
        rows, columns = (_spans(*each, tile, overlap) for each in zip(size, cells, strict=True))
        task = bar.add_task(source.name, total=len(rows) * len(columns))
        single = classes == 1
        with _created(destination, image, label_dtype(2 if single else classes), overwrite) as write:
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
    if not source.is_file():
        raise UserError(f"image {source} does not exist" + (" (it is a folder)" if source.is_dir() else ""))
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


def _rasterio():
    try:
        import rasterio
        import rasterio.windows
    except ImportError as error:
        raise UserError(
            f"very large images are read and written with rasterio, which cannot be imported ({error}); "
            "install it with pip install 'danseg[large]'"
        ) from error
    return rasterio


@contextlib.contextmanager
def _failing_as(what: str) -> Iterator[None]:
    """Turn errors of GDAL and of the operating system into a UserError that starts with ``what``."""
    try:
        yield
    except (_rasterio().errors.RasterioError, OSError) as error:
        raise UserError(f"{what}: {error.__cause__ or error}") from error


@contextlib.contextmanager
def _opened(path: Path):
    """Open the raster of a file and check that it has the bands that the network needs."""
    with _failing_as(f"image {path} cannot be read; it is not an image or it is damaged"):
        image = _rasterio().open(path)
    with image:
        wrong = None
        if image.count != 3 and not (image.count == 4 and image.colorinterp[3].name == "alpha"):
            wrong = f"has {image.count} bands ({', '.join(c.name for c in image.colorinterp)})"
            fix = "gdal_translate -b 1 -b 2 -b 3 picks three bands, -expand rgb replaces a palette by colours"
        elif set(image.dtypes) != {"uint8"}:
            wrong = f"holds {', '.join(sorted(set(image.dtypes)))}"
            fix = "gdal_translate -ot Byte -scale converts the values"
        if wrong:
            raise UserError(
                f"image {path} {wrong}; red, green and blue of 8 bits are needed, perhaps with alpha: {fix}"
            )
        yield image


class _RowReader:
    """Reads an image's rows, each row only once, because some formats cannot go back."""

    def __init__(self, image, path: Path) -> None:
        self.image = image
        self.path = path
        names = [c.name for c in image.colorinterp]
        colours = ("blue", "green", "red")
        told = set(colours) <= set(names)
        self.bands = [names.index(colour) + 1 for colour in colours] if told else [3, 2, 1]
        self.start = 0
        self.pixels = np.empty((3, 0, image.width), np.uint8)

    def read(self, start: int, end: int) -> np.ndarray:
        """Rows of blue, green and red (3, end - start, W), the order that mmseg's preprocessors expect.

        Neither ``start`` nor ``end`` may be smaller than in the previous call.
        """
        known = self.start + self.pixels.shape[1]
        kept = self.pixels[:, start - self.start :]
        self.start = start
        if end > known:
            window = _rasterio().windows.Window(0, known, self.image.width, end - known)
            with _failing_as(f"image {self.path} cannot be read from row {known} on; it may be cut short"):
                added = self.image.read(self.bands, window=window)
            kept = np.concatenate([kept, added], axis=1)
        self.pixels = kept
        return kept


@contextlib.contextmanager
def _created(
    destination: Path, image, dtype: torch.dtype, overwrite: bool
) -> Iterator[Callable[[np.ndarray, int], None]]:
    """Give a function that writes rows of labels (n, W) from a given row on; name the file at the end."""
    place = dict(crs=image.crs) if image.crs else {}
    if not image.transform.is_identity:
        place["transform"] = image.transform
    elif image.gcps[0]:
        points, crs = image.gcps
        place = dict(gcps=points, crs=crs)
    what = f"{destination} cannot be written"
    with whole_file(destination) as part:
        with _failing_as(what):
            file = _rasterio().open(
                part,
                "w",
                driver="GTiff",
                height=image.height,
                width=image.width,
                count=1,
                dtype=str(dtype).removeprefix("torch."),
                tiled=True,
                blockxsize=_BLOCK,
                blockysize=_BLOCK,
                compress="deflate",
                bigtiff="if_safer",
                **place,
            )

        def write(labels: np.ndarray, row: int) -> None:
            window = _rasterio().windows.Window(0, row, image.width, len(labels))
            with _failing_as(what):
                file.write(labels, 1, window=window)

        with file:
            yield write
        if not _is_whole(part):
            raise UserError(f"{what} to its end; the disk may be full")
        if not overwrite and destination.exists():
            raise UserError(f"{destination} has appeared in the meantime; name another destination")


def _is_whole(path: Path) -> bool:
    """Whether the file contains all tiles that the GeoTIFF lists: GDAL hides errors when it closes a file."""
    try:
        with _rasterio().open(path) as file:
            for (i, j), _ in file.block_windows(1):
                place = (file.get_tag_item(f"BLOCK_{what}_{j}_{i}", "TIFF", 1) for what in ("OFFSET", "SIZE"))
                if sum(int(number) for number in place) > path.stat().st_size:
                    return False
    except (_rasterio().errors.RasterioError, TypeError):  # the list, or an entry in it, is missing
        return False
    return True


def _logits(model: BaseSegmentor, pixels: np.ndarray) -> Tensor:
    """The head's logits (C, h, w) for blue, green and red (3, H, W), in at least float32."""
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
            end = below.start // _BLOCK * _BLOCK  # whole rows of the file's tiles, so each is compressed once
            while end > self.written and self._needed(end - 1)[1] > below.cell:
                end -= _BLOCK
        for row in range(self.written, end, _BLOCK):
            labels = upsampled_argmax(
                self.band[None],
                self.size,
                align_corners=self.align_corners,
                threshold=self.threshold,
                rows=(row, min(row + _BLOCK, end)),
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
