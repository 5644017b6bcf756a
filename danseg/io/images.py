"""Read and write images, with errors that name the file."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from danseg.errors import UserError
from danseg.io.files import whole_file
from danseg.io.png import RGB, decode_plain_png

_TIFF_BITS_PER_SAMPLE = 258


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image as (H, W, 3) uint8, RGB, in any format that OpenCV reads.

    Raises:
        UserError: the file is missing, or cannot be decoded as an image.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"image {path} does not exist" + (" (it is a folder)" if path.is_dir() else ""))
    try:
        # From bytes, because on some platforms OpenCV cannot open paths that are not ASCII.
        return decode_image_rows(path.read_bytes())[0]
    except (ValueError, OSError) as error:
        raise UserError(
            f"image {path} cannot be read ({path.stat().st_size} bytes): it is not an image or it is "
            "damaged; replace the file"
        ) from error


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
        ValueError: the file cannot be decoded.
    """
    plain = decode_plain_png(data, RGB, bottom)
    if plain is not None:
        rows, size = plain
        return rows[top:], size
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # for example, the image has more pixels than OpenCV accepts
        image = None
    if image is None:
        raise ValueError(f"{len(data)} bytes that are no image or a damaged one: copy or download it again")
    size, image = image.shape[:2], image[top:bottom]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), size


def decode_whole(data: bytes) -> Image.Image:
    """Decode all of an image file with Pillow, which keeps its kind: mode, format and metadata.

    Raises:
        ValueError: the file is damaged or no image; the message is the reason in a few words.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception as error:  # Pillow's decoders raise almost anything on damaged data
        reason = str(error) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "no known image format" if data else "the file has 0 bytes"
        raise ValueError(reason) from error
    return image


def save_image(image: np.ndarray, path: str | os.PathLike, *, compression: int | None = None) -> Path:
    """Write an image as PNG; an existing file is replaced only when the new one is complete.

    Args:
        image: (H, W, 3) RGB, (H, W, 4) with alpha, or (H, W) grey; uint8 or uint16.
        path: the file; its folder must exist.
        compression: zlib's level, 0 to 9; OpenCV's fastest choice by default.

    Raises:
        UserError: the file cannot be written, or ``path`` exists and is not a file.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    options = [] if compression is None else [cv2.IMWRITE_PNG_COMPRESSION, compression]
    with whole_file(path) as part:
        part.write_bytes(cv2.imencode(".png", image, options)[1].tobytes())
    return Path(path)


def sample_bits(image: Image.Image, data: bytes) -> int:
    """Bits per sample in the file ``data``; Pillow's mode hides the 16 bits of a colour PNG or TIFF."""
    if image.format == "PNG":
        return data[24]  # IHDR: 8 signature, 4 length, 4 "IHDR", 4 width, 4 height, 1 bit depth
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,)))
    return {"I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)
