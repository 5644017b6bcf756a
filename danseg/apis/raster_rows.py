"""Read the rows of an image file from top to bottom, with the values that a pipeline's loading step gives."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from danseg.datasets.loading import described, keeps_stored_bands, load_picture, require_finite, turned_by
from danseg.errors import UserError, importing_extra
from danseg.io.image_headers import UnusableImage, mapped, require_whole, tiff_bands
from danseg.io.images import refuse_alpha

# Formats whose files the loading step reads itself, into memory. They are photographs rather than maps, and
# GDAL gives other values (JPEG's colours differ by a dozen levels at edges) or ignores how they are turned.
_IN_MEMORY = ("AVIF", "GIF", "HEIF", "JPEG", "JPEGXL", "WEBP")
_COLOURS = ["red", "green", "blue"]
#: Settings of GDAL under which it reports damaged data instead of giving what it could decode.
STRICT = dict(GDAL_PNG_WHOLE_IMAGE_OPTIM=False, GDAL_ERROR_ON_LIBJPEG_WARNING=True)
# The file of a mosaic (GDAL's VRT), a text that names the files, or the addresses, of its parts.
_MOSAIC = ".vrt"


def import_rasterio() -> Any:
    """Import rasterio, or say how to install it."""
    with importing_extra("large", "very large images are read and written with rasterio, which"):
        import rasterio
        import rasterio.windows
    return rasterio


@contextlib.contextmanager
def failing_as(what: str, kind: type[UserError] = UserError) -> Iterator[None]:
    """Turn errors of GDAL and of the operating system into a ``kind`` that starts with ``what``."""
    try:
        yield
    except (import_rasterio().errors.RasterioError, OSError, UnusableImage) as error:
        raise kind(f"{what}: {error.__cause__ or error}") from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open the raster of a file that is whole."""
    with failing_as(f"image {path} cannot be read; it is not an image or it is damaged"):
        with mapped(path) as data:
            require_whole(data)
            if path.suffix.lower() != _MOSAIC:
                _require_pixels(bytes(data[:4096]))
        image = import_rasterio().open(path)
    with image:
        yield image


def _require_pixels(start: bytes) -> None:
    """Refuse a text under a picture's name, by which its sender would have other files or addresses read.

    Raises:
        UnusableImage: the first bytes of the file are one for which GDAL opens other files.
    """
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"<", b"{") or b"<VRTDataset" in start:
        raise UnusableImage("foreign", f"a text that can name other files; for a mosaic, call it {_MOSAIC}")


class RowReader:
    """Reads an image's rows, each row only once, because some formats cannot go back.

    Args:
        image: the opened raster.
        path: its file.
        loader: the step that loads pictures, from :func:`danseg.datasets.loading.loading_step`.
        then: is applied to the rows (n, W, C) that are read.

    Attributes:
        size: height and width of the picture that the step gives.
        turned: whether the step turns the picture, which then does not lie where the file says.
    """

    def __init__(
        self,
        image: Any,
        path: Path,
        loader: Any,
        then: Callable[[np.ndarray], np.ndarray] = lambda rows: rows,
    ) -> None:
        self.image = image
        self.path = path
        self.loader = loader
        self.then = then
        self.start = self.known = 0
        with failing_as(f"image {path} cannot be read"), mapped(path) as data:
            self.turned = turned_by(loader, data) != 1
            alpha = tiff_bands(data)[2]
        self.bands = None if self.turned else _bands(image, path, loader)
        self.alpha = alpha and self.bands is not None and not keeps_stored_bands(loader)
        self.whole: np.ndarray | None = None
        self.size = image.height, image.width
        if self.bands is None:
            self.whole = self._loaded()
            self.size = self.whole.shape[:2]
        self.pixels: np.ndarray | None = None

    def read(self, start: int, end: int) -> np.ndarray:
        """Rows of all channels (C, end - start, W), in the order that the loading step gives.

        Neither ``start`` nor ``end`` may be smaller than in the previous call.
        """
        kept = None if self.pixels is None else self.pixels[:, start - self.start :]
        if end > self.known:
            added = np.moveaxis(self.then(self._rows(self.known, end)), 2, 0)
            kept = added if kept is None else np.concatenate([kept, added], axis=1)
        self.start, self.known, self.pixels = start, max(end, self.known), kept
        assert kept is not None  # the first call reads at least one row
        return kept

    def _rows(self, start: int, end: int) -> np.ndarray:
        """Rows (n, W, C) of the file."""
        if self.whole is not None:
            return self.whole[start:end]
        window = import_rasterio().windows.Window(0, start, self.image.width, end - start)
        assert self.bands is not None
        bands = [*self.bands, 4] if self.alpha else self.bands
        with failing_as(f"image {self.path} cannot be read from row {start} on; it may be cut short"):
            rows = np.moveaxis(self.image.read(bands, window=window), 0, 2)
            if self.alpha:
                rows, alpha = rows[..., :-1], rows[..., -1]
                refuse_alpha(rows, alpha)
        if getattr(self.loader, "to_float32", False):
            rows = rows.astype(np.float32)
        require_finite(rows, f"image {self.path}", UserError)
        return rows

    def _loaded(self) -> np.ndarray:
        try:
            pixels = load_picture(self.loader, self.path)["img"]
        except UserError as error:
            names = ", ".join(colour.name for colour in self.image.colorinterp)
            raise UserError(
                f"{error} (GDAL reads it as {self.image.driver} with the bands {names}; by rows are read "
                f"red, green and blue, or grey, as {described(self.loader)} loads them)"
            ) from error
        return pixels if pixels.ndim == 3 else pixels[..., None]


def _bands(image: Any, path: Path, loader: Any) -> list[int] | None:
    """The bands that the loading step would give, in its order; None if it has to read the file itself."""
    if type(loader).__name__ == "LoadSingleRSImageFromFile":
        return list(range(1, image.count + 1)) if image.count > 1 else None
    color_type = getattr(loader, "color_type", None)
    plain = not any(image.tags(band, ns="IMAGE_STRUCTURE").get("NBITS") for band in image.indexes)
    plain = plain and "SOURCE_COLOR_SPACE" not in image.tags(ns="IMAGE_STRUCTURE")
    if keeps_stored_bands(loader) or color_type is None or image.driver in _IN_MEMORY or not plain:
        return None
    every = color_type == "unchanged"
    kinds = set(image.dtypes)
    if not every and kinds != {"uint8"}:
        held = ", ".join(sorted(kinds))
        refused = UnusableImage("deep", f"holds {held}, which would be cut to 8 bits")
        raise UserError(f"image {path} {refused}")
    names = [colour.name for colour in image.colorinterp]
    if names == ["gray"]:
        return [1, 1, 1] if color_type.startswith("color") else [1]
    if names[:3] != _COLOURS or len(names) > 4 or color_type.startswith("grayscale"):
        return None
    if every and len(names) == 4:
        return [3, 2, 1, 4]
    return [3, 2, 1]
