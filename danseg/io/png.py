"""Decode plain PNGs with kornia-rs, in half the time that libpng takes, which OpenCV and Pillow use.

A PNG is decoded from the top, so rows below the last one needed are skipped. All other files (palettes,
transparency, 16 bits, interlacing, other formats, damaged files) are left to OpenCV and Pillow.
"""

import mmap
import struct
import zlib
from collections.abc import Iterator

import numpy as np

try:
    from kornia_rs.io import decode_image_png_u8
except ImportError:  # danseg was installed without its extras: OpenCV and Pillow decode everything
    decode_image_png_u8 = None

GREY, RGB = 0, 2  # colour types of PNG
_MODES = {GREY: "mono", RGB: "rgb"}
SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that do not change the pixels in any decoder. Not among them: eXIf, which may rotate an image, tRNS,
# which adds alpha, and acTL, which adds frames.
_HARMLESS = frozenset(
    (b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"pHYs", b"tIME")
    + (b"tEXt", b"zTXt", b"iTXt")
)
# Bytes that one byte of deflated data may stand for. A header that promises more pixels is wrong, and the
# decoder would first ask for their memory.
DEFLATE_RATIO = 1032
_CHANNELS = {GREY: 1, RGB: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# The first column and row, and the steps, of each pass of an interlaced PNG.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIECE = 2**18  # bytes to inflate at a time, and to get from it


def decode_plain_png(
    data: bytes, colour: int, bottom: int | None = None
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """The rows of a plain PNG above ``bottom``, and the size of the whole image.

    Args:
        data: the file's content.
        colour: ``GREY`` or ``RGB``: the only colour type to decode.
        bottom: end of the rows; all rows by default.

    Returns:
        uint8 (rows, width, 1 or 3) and (height, width); None if another decoder should try the file.
    """
    size = _plain_size(data, colour)
    if size is None:
        return None
    height, width = size
    rows = height if bottom is None else min(bottom, height)
    data = data if rows == height else _cut_below(data, rows)
    try:
        return decode_image_png_u8(data, (rows, width), _MODES[colour]), size
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # kornia-rs raises nothing more specific, and its panics are no Exceptions
        return None


def chunks(data: bytes | mmap.mmap) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and length of each complete chunk of a PNG; ends where the file is cut short."""
    at = 8
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            return
        yield name, at + 8, length
        at += 12 + length


def lacks_pixels(data: bytes | mmap.mmap) -> bool:
    """Whether the deflated data of a PNG with all its chunks stand for fewer bytes than its header promises.

    Pillow fills the missing rows with zeros, and GDAL too.
    """
    if len(data) < 33:
        return True
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    missing = 0
    for x, y, step_x, step_y in passes:
        columns, rows = -(-(width - x) // step_x), -(-(height - y) // step_y)
        if columns > 0 and rows > 0:
            missing += rows * (1 + (columns * bits * _CHANNELS.get(colour, 1) + 7) // 8)
    inflate = zlib.decompressobj()
    try:
        for name, start, length in chunks(data):
            for at in range(start, start + length, _PIECE) if name == b"IDAT" else ():
                found, rest = _PIECE, data[at : min(at + _PIECE, start + length)]
                while missing > 0 and (rest or found == _PIECE):
                    found = len(inflate.decompress(rest, _PIECE))
                    rest = inflate.unconsumed_tail
                    missing -= found
    except zlib.error:
        return True
    return missing > 0


def _plain_size(data: bytes, colour: int) -> tuple[int, int] | None:
    """(height, width) of the file if it is a complete, plain 8-bit PNG of this colour type, else None."""
    if decode_image_png_u8 is None or len(data) < 33 or data[:8] != SIGNATURE or data[12:16] != b"IHDR":
        return None
    width, height, *kind = struct.unpack_from(">IIBBBBB", data, 16)
    if kind != [8, colour, 0, 0, 0]:  # bits, colour, compression, filter, interlacing
        return None
    if height * width * (3 if colour == RGB else 1) > len(data) * DEFLATE_RATIO:
        return None
    for name, _, _ in chunks(data):
        if name not in _HARMLESS:
            return None
        if name == b"IEND":
            return height, width
    return None


def _cut_below(data: bytes, rows: int) -> bytes:
    """The PNG with ``rows`` as the height in its header, so that a decoder stops after that many rows."""
    header = data[12:20] + struct.pack(">I", rows) + data[24:29]
    return b"".join((data[:12], header, struct.pack(">I", zlib.crc32(header)), memoryview(data)[33:]))
