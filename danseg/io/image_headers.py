"""What the header and the structure of an image file tell, without decoding its pixels."""

import contextlib
import importlib
import io
import mmap
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from PIL.WebPImagePlugin import WebPImageFile

from danseg.io.png import DEFLATE_RATIO, SIGNATURE, chunks, lacks_pixels
from danseg.io.source_files import open_file

#: What can be wrong with an image file, and how to mend it.
FIXES = {
    "damaged": "copy or download it again",
    "foreign": "copy or download it again, or save it plainly (gdal_translate -co TILED=NO IN OUT)",
    "deep": "save it with 8 bits a channel, scaled as the images of training were (for values up to 4095: "
    "gdal_translate -ot Byte -scale 0 4095 0 255 IN OUT), or have the config's pipelines keep its values: "
    "LoadImageFromFile with color_type='unchanged'",
    "bands": "save red, green and blue alone (gdal_translate -b 1 -b 2 -b 3 -co PHOTOMETRIC=RGB IN OUT), or "
    "have the config's pipelines load all bands",
    "turned": "turn the pixels and drop the tag (PIL.ImageOps.exif_transpose) or drop the tag alone, "
    "whichever fits the label",
    "alpha": "save it without alpha (gdal_translate -b 1 -b 2 -b 3 IN OUT)",
}
_ORIENTATION, _PHOTOMETRIC, _SAMPLES, _EXTRA_SAMPLES, _COMPRESSION = 274, 262, 277, 338, 259
_DEFLATED = (8, 32946)  # values of the compression tag
_HUFFMAN = (0xC0, 0xC1, 0xC2)  # markers of JPEG's frames that are coded so, in blocks of 8 x 8
_HARMLESS_SIZE = 2**26
_PIECE = 2**18  # bytes to inflate at a time, and to get from it
# Offsets and sizes of what holds a TIFF's pixels: strips, or tiles.
_PLACES = ((273, 279), (324, 325))
_GREY_TIFF, _UNASSOCIATED_ALPHA = (0, 1), 2
Content = bytes | mmap.mmap

# Makes Pillow know formats that OpenCV decodes too, and that it loads on demand. Older ones have no AVIF.
for _format in ("Jpeg2K", "Avif"):
    with contextlib.suppress(ImportError):
        importlib.import_module(f"PIL.{_format}ImagePlugin")


class UnusableImage(ValueError):
    """Raised for a file whose pixels cannot be used as they are.

    Attributes:
        kind: a key of :data:`FIXES`.
        reason: what is wrong, in a few words.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}: {FIXES[self.kind]}"


def require_whole(data: Content) -> None:
    """Refuse a PNG, JPEG or TIFF that is cut short, or whose checksums or size do not fit.

    Some decoders fill what is missing with grey or with zeros and say nothing: OpenCV for JPEGs, GDAL and
    Pillow for PNGs, OpenCV and GDAL for TIFFs whose bands are stored one after the other or whose writing was
    interrupted. They do not compare the checksums of deflated TIFFs either. All decoders notice by themselves
    that another format is cut short.

    Raises:
        UnusableImage: the file is damaged.
    """
    if not len(data):
        raise UnusableImage("damaged", "the file has 0 bytes")
    if data[:8] == SIGNATURE:
        _require_whole_png(data)
    elif data[:2] == b"\xff\xd8":
        _require_whole_jpeg(data)
    elif tags := tiff_tags(data):
        deflated = tags.get(_COMPRESSION) in _DEFLATED
        for offsets, sizes in ((tags.get(one) or (), tags.get(other) or ()) for one, other in _PLACES):
            for offset, size in zip(offsets, sizes, strict=False):
                if not size or offset + size > len(data):
                    raise UnusableImage(
                        "damaged", f"a TIFF of {len(data)} bytes that lacks a part of its pixels"
                    )
                if deflated and not _is_whole_stream(data, offset, size):
                    raise UnusableImage("damaged", f"a TIFF with a wrong checksum after byte {offset}")


def _is_whole_stream(data: Content, start: int, size: int) -> bool:
    """Whether bytes are a deflated stream that goes to its end, where its checksum is right."""
    inflate = zlib.decompressobj()
    rest, at, end = b"", start, start + size
    try:
        while not inflate.eof and (rest or at < end):
            piece = rest or data[at : min(at + _PIECE, end)]
            at += 0 if rest else len(piece)
            inflate.decompress(piece, _PIECE)
            rest = inflate.unconsumed_tail
    except zlib.error:
        return False
    if not isinstance(data, bytes) and hasattr(mmap, "MADV_DONTNEED"):  # let large files leave the memory
        data.madvise(mmap.MADV_DONTNEED)
    return inflate.eof


def _require_whole_jpeg(data: Content) -> None:
    scan, blocks = _jpeg_frame(data)
    # Each block of 8 x 8 samples takes at least the one bit of its mean.
    if data.find(b"\xff\xd9", scan) < 0 or blocks > 8 * len(data):
        raise UnusableImage("damaged", f"a JPEG that is cut short after {len(data)} bytes")


def _require_whole_png(data: Content) -> None:
    with memoryview(data) as view:
        for name, start, length in chunks(data):
            with view[start - 4 : start + length] as checked:
                found = zlib.crc32(checked)
            if found != int.from_bytes(data[start + length : start + length + 4], "big"):
                raise UnusableImage("damaged", f"a PNG with a wrong checksum near byte {start + length}")
            if name == b"IEND":
                if lacks_pixels(data):
                    raise UnusableImage("damaged", "a PNG with fewer pixels than its header promises")
                return
    raise UnusableImage("damaged", f"a PNG that is cut short after {len(data)} bytes")


def _jpeg_frame(data: Content) -> tuple[int, int]:
    """Of a JPEG: where its first scan starts, behind all headers, and the least number of its blocks.

    The number is 0 for codes that may spend less than one bit on a block.
    """
    at, blocks = 2, 0
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        if at + 10 <= len(data) and data[at + 1] in _HUFFMAN:
            height, width, count = struct.unpack_from(">HHB", data, at + 5)
            factors = [(one >> 4, one & 15) for one in data[at + 11 : at + 10 + 3 * count : 3]]
            wide, high = (max((1, *side)) for side in zip(*factors, strict=True)) if factors else (1, 1)
            blocks = sum(-(-width * x // (8 * wide)) * -(-height * y // (8 * high)) for x, y in factors)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at, blocks


def require_plausible_size(data: Content) -> None:
    """Refuse a file whose pixels would take much memory, far more than what such a file can stand for.

    For decoders that make room for the whole picture before they read it.

    Raises:
        UnusableImage: the header claims more than 64 MiB, at a byte a sample, and more than 1032 times the
            file's size, which is the most that deflate packs.
    """
    width, height, bands = claimed_size(data)
    if width * height * bands > max(_HARMLESS_SIZE, DEFLATE_RATIO * len(data)):
        raise UnusableImage(
            "damaged", f"its header claims {width}x{height} pixels, too many for {len(data)} bytes"
        )


def claimed_size(data: Content) -> tuple[int, int, int]:
    """Width, height and bands that a header claims, before anything is decoded; 0 for formats it cannot tell.

    These are what Pillow does not know, and what is no picture. Image.open, which does the same, has a limit
    of its own, above which pictures of any file are refused.
    """
    Image.preinit()
    for factory, accepts in [Image.OPEN[name] for name in Image.ID]:
        with contextlib.suppress(Exception):  # a header that cannot be read is the decoder's to refuse
            if accepts and accepts(data[:16]) is True:
                with factory(_rewound(data), "") as image:
                    return *image.size, len(image.getbands())
    return 0, 0, 0


def stored_size(path: Any) -> tuple[int, int] | None:
    """Height and width that a picture's header claims; None if the file cannot be read or is no picture."""
    try:
        with mapped(path) as data:
            width, height, _ = claimed_size(data)
    except (OSError, UnusableImage):
        return None
    return (height, width) if width and height else None


def orientation(data: Content) -> int:
    """The EXIF orientation of a JPEG, PNG, WebP or TIFF: 2 to 8 if a viewer turns it, else 1."""
    tags: Any = {}
    # Damaged notes about an image are no reason to refuse it.
    with contextlib.suppress(Exception):
        if data[:8] == SIGNATURE:
            for name, start, length in chunks(data):
                if name == b"eXIf":
                    tags = Image.Exif()
                    tags.load(b"Exif\0\0" + data[start : start + length])
        elif data[:2] == b"\xff\xd8":
            tags = JpegImageFile(_stream(data)).getexif()
        elif data[:4] == b"RIFF":
            tags = WebPImageFile(_stream(data)).getexif()
        else:
            tags = tiff_tags(data)
    found = tags.get(_ORIENTATION, 1)
    return found if found in range(2, 9) else 1


def require_upright(data: bytes) -> None:
    """Refuse an image that is turned by its EXIF orientation, which its label is not.

    Raises:
        UnusableImage: the orientation is not 1.
    """
    turned = orientation(data)
    if turned != 1:
        raise UnusableImage("turned", f"orientation {turned}, by which loading turns it but not its label")


def _stream(data: Content) -> Any:
    return io.BytesIO(data) if isinstance(data, bytes) else data


def _rewound(data: Content) -> Any:
    stream = _stream(data)
    stream.seek(0)
    return stream


def tiff_tags(data: Content) -> Any:
    """The tags of a TIFF's first image, by number; empty for another format."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return {}
    try:
        stream = _rewound(data)
        tags = ImageFileDirectory_v2(stream.read(16 if b"+" in data[2:4] else 8))
        stream.seek(tags.next)
        tags.load(stream)
        return dict(tags)
    except Exception as error:  # Pillow raises almost anything on damaged data
        raise UnusableImage("damaged", f"a TIFF without a readable list of tags ({error})") from error


def tiff_bands(data: Content) -> tuple[int, bool, bool]:
    """Of a TIFF: the number of bands, whether they are colours, and whether the last is alpha to apply.

    (1, True, False) for other formats.
    """
    tags = tiff_tags(data)
    count = tags.get(_SAMPLES, 1)
    colours = count == 1 or tags.get(_PHOTOMETRIC) not in _GREY_TIFF
    return count, colours, _UNASSOCIATED_ALPHA in (tags.get(_EXTRA_SAMPLES) or ())


@contextlib.contextmanager
def mapped(path: Any) -> Iterator[Content]:
    """The bytes of a file, which are not held in memory."""
    with open_file(path) as file:
        if not file.seek(0, io.SEEK_END):
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
