"""Read and write label maps as PNG files; all of danseg uses this reader and this writer.

The sample values that a file stores are the ids. A file may hold them as

* 8-bit grey, which is what :func:`write_label_map` writes;
* a palette of 1, 2, 4 or 8 bits: the indices are the ids, the colours are ignored;
* 1-bit grey: 0 and 1.

Everything else is refused with its reason: colours, alpha, 16 bits, JPEG, damaged or empty files. Grey of 2
or 4 bits is refused too, because other readers, among them mmseg's, stretch it to 0..255. BMP, GIF and TIFF
files follow the same rules.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from danseg.errors import UserError, reason_of
from danseg.io.image_headers import UnusableImage, require_whole
from danseg.io.images import decode_whole, sample_bits, save_image
from danseg.io.png import GREY, decode_plain_png
from danseg.io.source_files import read_file

FIX = "store the ids themselves, not colours, in an 8-bit grey PNG made from the original annotation"
_LOSSLESS = ("PNG", "BMP", "GIF", "TIFF")
_MODES = {"L": "grey", "LA": "grey with alpha", "RGB": "RGB colours", "RGBA": "RGB colours with alpha"}


class UnusableLabelMap(UserError):
    """Raised for a file that is not a label map.

    Attributes:
        reason: what is wrong with the file, in a few words, such as "16 bits a sample".
        damaged: True if the file cannot be read at all, False if it is readable but of the wrong kind.
    """

    # Only the first argument is required, so that the error can be unpickled from a worker process.
    def __init__(self, message: str, reason: str = "", damaged: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.damaged = damaged


def read_label_map(path: str | os.PathLike) -> np.ndarray:
    """Read the ids in a label file as uint8 (H, W).

    Raises:
        UnusableLabelMap: the file is missing, damaged, or of a kind that the module's docstring does not
            allow.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise _unreadable(path, reason_of(error)) from error
    return decode_label_map(data, path)


def decode_label_map(data: bytes, source: str | os.PathLike) -> np.ndarray:
    """Like :func:`read_label_map`, but from ``data``, the content of the file ``source``."""
    plain = decode_plain_png(data, GREY)
    if plain is not None:
        return plain[0][..., 0]
    try:
        require_whole(data)
        image = decode_whole(data)
    except ValueError as error:
        reason = error.reason if isinstance(error, UnusableImage) else str(error)
        raise _unreadable(source, reason) from error
    wrong = _what_is_wrong(image, data)
    if wrong:
        raise UnusableLabelMap(f"{source} is no label map: {wrong}; {FIX}", wrong)
    return np.array(image, dtype=np.uint8)


def _unreadable(source: str | os.PathLike, reason: str) -> UnusableLabelMap:
    message = f"{source} cannot be read as a label map ({reason}): copy, download or write it again"
    return UnusableLabelMap(message, reason, damaged=True)


def _what_is_wrong(image: Image.Image, data: bytes) -> str | None:
    """Why the samples of a decoded file are not ids; None if they are."""
    kind = image.format or "unknown"
    if kind not in _LOSSLESS or image.info.get("compression") == "jpeg":
        return f"{kind}, whose compression may change ids"
    bits = sample_bits(image, data)
    if bits > 8:
        return f"{bits} bits a sample"
    if image.mode not in ("1", "L", "P"):
        return _MODES.get(image.mode, f"{image.mode} samples")
    if image.mode == "L" and bits in (2, 4):
        return f"grey of {bits} bits, which other readers stretch to 0..255"
    return None


def write_label_map(
    path: str | os.PathLike, ids: np.ndarray, palette: Sequence[Sequence[int]] | None = None
) -> Path:
    """Write ids (H, W) as an 8-bit grey PNG; an existing file is replaced only when the new one is complete.

    With a palette, one (red, green, blue) per id, it is a PNG of colours that holds the same ids.

    Raises:
        UserError: an id is not in 0..255, or the file cannot be written.
    """
    ids = np.asarray(ids)
    if ids.size and (ids.min() < 0 or ids.max() > 255):
        raise UserError(f"{path}: a label map holds ids of 8 bits, 0..255, got {ids.min()}..{ids.max()}")
    return save_image(ids.astype(np.uint8, copy=False), path, compression=3, palette=palette)
