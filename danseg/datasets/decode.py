"""Image and label files to arrays: what mmseg's loading transforms give, in less time.

Half of a training pipeline's time goes into the PNGs' decompression, where OpenCV and Pillow both stand on
libpng. kornia-rs, on the ``png`` crate, takes half as long for the same pixels, and a PNG is decoded from
its top: the rows below those that are wanted need not be. Whatever is not a plain PNG (palettes,
transparency, 16 bits, interlacing, other formats, damaged files) goes to OpenCV and Pillow, as in mmseg.
"""

import struct
import zlib

import cv2
import mmcv
import numpy as np

try:
    from kornia_rs.io import decode_image_png_u8
except ImportError:  # danseg was installed without its extras: everything goes to OpenCV and Pillow
    decode_image_png_u8 = None

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
# Chunks that leave the pixels as they are, in every decoder. eXIf may turn an image, tRNS and acTL add alpha
# and further frames.
_HARMLESS = frozenset(
    (b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"pHYs", b"tIME")
    + (b"tEXt", b"zTXt", b"iTXt")
)


def decode_image_rows(data: bytes, top: int, bottom: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Rows ``top`` to ``bottom`` (exclusive) of an image file, and the whole image's size.

    Args:
        data: the file, in any format that OpenCV reads.
        top: first row.
        bottom: end of the rows; those beyond the image's end are left out.

    Returns:
        uint8 (rows, width, 3) in the order RGB, with the values of ``cv2.imdecode``, and (height, width).

    Raises:
        ValueError: the file cannot be decoded.
    """
    size = _plain_png_size(data, _RGB)
    if size is not None:
        rows, width = min(bottom, size[0]), size[1]
        try:
            return decode_image_png_u8(_cut_below(data, rows), (rows, width), "rgb")[top:], size
        except Exception:  # kornia-rs raises nothing more specific; OpenCV shall judge the file
            pass
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise ValueError(f"{len(data)} bytes that are no image or a damaged one: copy or download it again")
    size, image = image.shape[:2], image[top:bottom]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), size


def decode_label(data: bytes) -> np.ndarray:
    """The ids in a label file, uint8 (height, width), palettes left alone.

    Raises:
        ValueError: the file cannot be decoded, has colours, or more than 8 bits.
    """
    size = _plain_png_size(data, _GREY)
    if size is not None:
        try:
            return decode_image_png_u8(data, size, "mono")[..., 0]
        except Exception:  # as above
            pass
    try:
        label = mmcv.imfrombytes(data, flag="unchanged", backend="pillow")
    except Exception as error:  # Pillow's decoders raise almost anything on damaged data
        raise ValueError(f"the label cannot be decoded ({error}): copy or download it again") from error
    if label.ndim != 2:
        raise ValueError("the label has colours; store ids, not colours, in an 8-bit PNG of one channel")
    if label.dtype not in (np.uint8, np.bool_):
        raise ValueError(f"the label has values of type {label.dtype}; store ids of 8 bits, in a PNG")
    return label.astype(np.uint8, copy=False)


def id_table(reduce_zero_label: bool, label_map: dict[int, int] | None) -> np.ndarray:
    """What mmseg's loading makes of each of the 256 ids that a label file can hold.

    Args:
        reduce_zero_label: 0 becomes 255, which stays, and the others move down by one.
        label_map: ids to be replaced, after that; the others stay.

    Returns:
        int64 (256,).
    """
    table = np.arange(256)
    if reduce_zero_label:
        table = np.where((table == 0) | (table == 255), 255, table - 1)
    if label_map:
        table = np.array([label_map.get(int(i), i) for i in table])
    return table


def _plain_png_size(data: bytes, colour: int) -> tuple[int, int] | None:
    """(height, width) of a whole 8-bit PNG of that colour type without anything unusual, otherwise None."""
    if decode_image_png_u8 is None or len(data) < 33 or data[:8] != _SIGNATURE or data[12:16] != b"IHDR":
        return None
    width, height, *kind = struct.unpack_from(">IIBBBBB", data, 16)
    if kind != [8, colour, 0, 0, 0]:  # bits, colour, compression, filter, interlacing
        return None
    at = 8
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name not in _HARMLESS:
            return None
        at += 12 + length
        if name == b"IEND":
            return height, width
    return None


def _cut_below(data: bytes, rows: int) -> bytes:
    """The PNG with another height in its header: a decoder stops after that many rows."""
    header = data[12:20] + struct.pack(">I", rows) + data[24:29]
    return b"".join((data[:12], header, struct.pack(">I", zlib.crc32(header)), memoryview(data)[33:]))
