"""Read and write images, with errors that name the file.

What a reader of 8-bit colours makes of a file, here and in every pipeline that loads colours:

* grey becomes three equal channels; grey of 1, 2 or 4 bits is stretched to 0..255;
* a palette becomes its colours; CMYK, YCbCr and Lab are converted to RGB;
* alpha is dropped, and so is a fourth band of a TIFF of colours;
* the picture is turned as its EXIF orientation says, so that height and width are those of the upright one;
* of several pictures in one file, the first one is read.

Refused, with the fix: files that are cut short or damaged; more than 8 bits a channel and floating point,
which OpenCV would cut to 8 bits; TIFFs of several bands that are not marked as colours, of which OpenCV would
read the first alone; TIFFs whose alpha would darken their colours, as OpenCV does in no other format.
"""

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from danseg.errors import UserError, reason_of
from danseg.io.files import whole_file
from danseg.io.image_headers import (
    UnusableImage,
    require_plausible_size,
    require_whole,
    tiff_bands,
    tiff_tags,
)
from danseg.io.png import RGB, decode_plain_png
from danseg.io.source_files import read_file

#: Names of image files end so, in small letters or capitals.
IMAGE_SUFFIXES = tuple(
    ".avif .bmp .gif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
_TIFF_BITS_PER_SAMPLE = 258


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image as (H, W, 3) uint8, RGB, in any format that OpenCV reads.

    Raises:
        UserError: the file is missing, or is refused for a reason in the module's docstring.
    """
    data = read_bytes(path)
    try:
        return decode_image_rows(data)[0]
    except ValueError as error:
        raise UserError(f"image {path} cannot be read ({len(data)} bytes): {error}") from error


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of an image file.

    Raises:
        UserError: the file is missing, is no file, or cannot be opened.
    """
    try:
        # OpenCV gets bytes, because on some platforms it cannot open paths that are not ASCII.
        return read_file(path)
    except OSError as error:
        raise UserError(f"image {path} cannot be read: {reason_of(error)}") from error


def decode_image_rows(
    data: bytes, top: int = 0, bottom: int | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Rows ``top`` to ``bottom`` (exclusive) of an image file, and the whole image's size.

    Args:
        data: the file, in any format that OpenCV reads.
        top: first row.
        bottom: end of the rows; by default, and at most, the image's height.

    Returns:
        uint8 (rows, width, 3) in the order RGB, with the values of ``cv2.imdecode``, and (height, width).

    Raises:
        UnusableImage: the file is refused for a reason in the module's docstring.
    """
    plain = decode_plain_png(data, RGB, bottom)
    if plain is not None:
        rows, size = plain
        return rows[top:], size
    check_bands(data)
    image = _decoded(data)
    size, image = image.shape[:2], image[top:bottom]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), size


def check_bands(data: bytes, every: bool = False) -> None:
    """Refuse a damaged file, and a TIFF of whose bands OpenCV would read one alone or darken the colours.

    Args:
        data: the file.
        every: whether the reader keeps all channels, as with OpenCV's IMREAD_UNCHANGED.

    Raises:
        UnusableImage: the reason.
    """
    require_whole(data)
    if data[:4] == b"RIFF":  # of a WebP that is damaged OpenCV decodes what it can
        try:
            decode_whole(data)
        except ValueError as error:
            raise UnusableImage("damaged", f"a damaged WebP: {error}") from error
    count, colours, alpha = tiff_bands(data)
    if not colours or count > 4:
        # All bands of more than 8 bits are read, and refused for their bits where colours are wanted.
        read = _imdecode(data, cv2.IMREAD_UNCHANGED) if every else None
        if read is None or read.ndim != 3 or read.shape[2] != count:
            first = "the first alone" if count <= 4 else "none"
            raise UnusableImage("bands", f"a TIFF of {count} bands, of which OpenCV would read {first}")
    elif alpha:
        pixels = np.asarray(decode_whole(data).convert("RGBA"))
        refuse_alpha(pixels[..., :3], pixels[..., 3])


def refuse_alpha(colours: np.ndarray, alpha: np.ndarray) -> None:
    """Refuse the pixels of a TIFF, (H, W, C) and (H, W), that OpenCV would darken by multiplying with alpha.

    Raises:
        UnusableImage: a pixel would change.
    """
    if colours[alpha < 255].any():
        raise UnusableImage("alpha", "a TIFF whose alpha OpenCV would multiply its colours by")


def _decoded(data: bytes) -> np.ndarray:
    """The 8-bit colours of a file, BGR."""
    # With IMREAD_ANYDEPTH, files of 8 bits give the same values, and others show what they hold.
    image = _imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        image = _imdecode(data, cv2.IMREAD_UNCHANGED)  # some kinds, such as grey floats, are no colours to it
        if image is None or image.dtype == np.uint8:
            if tiff_tags(data):
                raise UnusableImage("foreign", "a TIFF that OpenCV cannot decode")
            raise UnusableImage("damaged", f"{len(data)} bytes that are no image or a damaged one")
    if image.dtype != np.uint8:
        raise UnusableImage("deep", f"its samples are {image.dtype}, which would be cut to 8 bits")
    return image


def _imdecode(data: bytes, flags: int) -> np.ndarray | None:
    require_plausible_size(data)
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # for example, the image has more pixels than OpenCV accepts
        return None


def decode_whole(data: bytes) -> Image.Image:
    """Decode all of an image file with Pillow, which keeps its kind: mode, format and metadata.

    Raises:
        ValueError: the file is damaged or no image; the message is the reason in a few words.
    """
    require_plausible_size(data)
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception as error:  # Pillow's decoders raise almost anything on damaged data
        reason = str(error) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "no known image format" if data else "the file has 0 bytes"
        raise ValueError(reason) from error
    return image


def save_image(
    image: np.ndarray,
    path: str | os.PathLike,
    *,
    compression: int | None = None,
    palette: Sequence[Sequence[int]] | None = None,
) -> Path:
    """Write an image as PNG; an existing file is replaced only when the new one is complete.

    Args:
        image: (H, W, 3) RGB, (H, W, 4) with alpha, or (H, W) grey; uint8 or uint16.
        path: the file; its folder must exist.
        compression: zlib's level, 0 to 9; OpenCV's fastest choice by default.
        palette: colours (red, green, blue) of the values of a grey uint8 image, which then stay what the file
            holds; values beyond the palette are black.

    Raises:
        UserError: the file cannot be written, or ``path`` exists and is not a file.
    """
    options = [] if compression is None else [cv2.IMWRITE_PNG_COMPRESSION, compression]
    with whole_file(path) as part:
        if palette is None:
            part.write_bytes(encode_image(image, ".png", options))
        else:
            part.write_bytes(encode_indexed(image, palette, 3 if compression is None else compression))
    return Path(path)


def encode_indexed(image: np.ndarray, palette: Sequence[Sequence[int]], compression: int = 3) -> bytes:
    """A grey uint8 image (H, W) as the content of a PNG that shows its values in the colours of a palette.

    Args:
        image: the values, which stay what the file holds.
        palette: one (red, green, blue) a value; values beyond it are black.
        compression: zlib's level, 0 to 9.
    """
    indexed = Image.frombytes("P", image.shape[::-1], np.ascontiguousarray(image).tobytes())
    indexed.putpalette(bytes(one for colour in palette for one in colour).ljust(768, b"\0"))
    with io.BytesIO() as file:
        indexed.save(file, "PNG", compress_level=compression)
        return file.getvalue()


def encode_image(image: np.ndarray, suffix: str, options: Sequence[int] = ()) -> bytes:
    """An image, (H, W, 3) RGB, (H, W, 4) with alpha or (H, W) grey, as a file's content.

    Args:
        image: the image, in a type that the format takes.
        suffix: of the format's files: ".png", ".jpg".
        options: as for ``cv2.imencode``.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    return cv2.imencode(suffix, image, options)[1].tobytes()


def encode_animation(frames: Iterable[np.ndarray], milliseconds: int) -> bytes:
    """Pictures of one size as the content of a GIF that repeats itself.

    Args:
        frames: at least one, (H, W, 3) uint8 RGB; each gets 256 colours that spread over its own.
        milliseconds: that each stays.
    """
    first, *others = (
        Image.frombytes("RGB", one.shape[1::-1], np.ascontiguousarray(one).tobytes()).quantize(
            256, method=Image.Quantize.MAXCOVERAGE
        )
        for one in frames
    )
    with io.BytesIO() as file:
        first.save(file, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
        return file.getvalue()


def sample_bits(image: Image.Image, data: bytes) -> int:
    """Bits per sample in the file ``data``; Pillow's mode hides the 16 bits of a colour PNG or TIFF."""
    if image.format == "PNG":
        return data[24]  # IHDR: 8 signature, 4 length, 4 "IHDR", 4 width, 4 height, 1 bit depth
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,)))
    return {"I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)
