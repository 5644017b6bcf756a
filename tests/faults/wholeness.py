"""Whether a file's own checksums and decoders would have refused it. Independent of danseg's readers."""

import io
import struct
import warnings
import zipfile
import zlib

from PIL import Image

from mutations import PNG, ZIP, png_chunks


def complaint(data: bytes) -> str:
    """What a reader of the format could have seen; '' if nothing is wrong with it."""
    try:
        if data[:8] == PNG:
            _read_png(data)
        elif data[:4] == ZIP:
            _read_zip(data)
        elif data[:1] == b"\x80":  # a bare pickle has nothing to be checked by
            return ""
        _ = data[:4] == ZIP or _read_image(data)
    except Exception as error:  # noqa: BLE001  (decoders raise anything)
        return f"{type(error).__name__}: {error}"
    return ""


def _read_png(data: bytes) -> None:
    packed = b""
    for kind, content, checksum in png_chunks(data):
        if zlib.crc32(kind + content) != checksum:
            raise ValueError(f"checksum of {kind!r}")
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", content[:10])
        packed += content if kind == b"IDAT" else b""
    unpack = zlib.decompressobj()
    size = len(unpack.decompress(packed, 1 << 28))
    if not unpack.eof:
        raise ValueError("the packed pixels end early")
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    if size < height * (1 + (width * channels * depth + 7) // 8):  # an interlaced one has more
        raise ValueError(f"{size} bytes of pixels")


def _read_zip(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f"checksum of {damaged}")


def _read_image(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = Image.open(io.BytesIO(data))
        image.load()
