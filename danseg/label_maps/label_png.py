"""Label maps as PNG files: the one reader and the one writer.

The sample values that a file stores are the ids. A file may hold them as

* grey of 8 bits, which is what :func:`write_label_map` writes;
* a palette of 1, 2, 4 or 8 bits: the indices are the ids, the colours do not count;
* grey of 1 bit: 0 and 1.

All else is refused by name: colours, alpha, 16 bits, JPEG, damaged or empty files. So is grey of 2 or 4 bits,
which other readers, mmseg's among them, stretch to 0..255. BMP, GIF and TIFF are read by the same rule.
"""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from danseg.errors import UserError
from danseg.io.images import sample_bits, save_image
from danseg.io.png import GREY, decode_plain_png

FIX = "store the ids themselves, not colours, in an 8-bit grey PNG made from the original annotation"
_LOSSLESS = ("PNG", "BMP", "GIF", "TIFF")
_MODES = {"L": "grey", "LA": "grey with alpha", "RGB": "RGB colours", "RGBA": "RGB colours with alpha"}


class UnusableLabelMap(UserError):
    """A file that holds no ids.

    Attributes:
        reason: what is wrong with it, in a few words, such as "16 bits a sample".
        damaged: whether it cannot be read at all; otherwise it is a whole file of another kind.
    """

    # With one argument to be made of, so that it comes back whole from a worker process.
    def __init__(self, message: str, reason: str = "", damaged: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.damaged = damaged


def read_label_map(path: str | os.PathLike) -> np.ndarray:
    """The ids in a label file, uint8 (H, W).

    Raises:
        UnusableLabelMap: it is missing, damaged, or of a kind that the module's docstring does not allow.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    return decode_label_map(data, path)


def decode_label_map(data: bytes, source: str | os.PathLike) -> np.ndarray:
    """As :func:`read_label_map`, from the content of the file ``source``."""
    plain = decode_plain_png(data, GREY)
    if plain is not None:
        return plain[0][..., 0]
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception as error:  # Pillow's decoders raise almost anything on damaged data
        reason = str(error) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "no known image format" if data else "the file has 0 bytes"
        raise _unreadable(source, reason) from error
    wrong = _what_is_wrong(image, data)
    if wrong:
        raise UnusableLabelMap(f"{source} is no label map: {wrong}; {FIX}", wrong)
    return np.array(image, dtype=np.uint8)


def _unreadable(source: str | os.PathLike, reason: str) -> UnusableLabelMap:
    message = f"{source} cannot be read as a label map ({reason}): copy, download or write it again"
    return UnusableLabelMap(message, reason, damaged=True)


def _what_is_wrong(image: Image.Image, data: bytes) -> str | None:
    """Why the samples of a decoded file are no ids; None where they are."""
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


def write_label_map(path: str | os.PathLike, ids: np.ndarray) -> Path:
    """Write ids (H, W) as a grey PNG of 8 bits; a file of that name is replaced whole.

    Raises:
        UserError: an id is not in 0..255, or the file cannot be written.
    """
    ids = np.asarray(ids)
    if ids.size and (ids.min() < 0 or ids.max() > 255):
        raise UserError(f"{path}: a label map holds ids of 8 bits, 0..255, got {ids.min()}..{ids.max()}")
    return save_image(ids.astype(np.uint8, copy=False), path, compression=3)
