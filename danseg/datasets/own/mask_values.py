"""What the pixels of a mask file hold: ids or colours. More kinds of files are taken than in training.

Ids are the values of grey masks, of 8 or 16 bits, the indices of palettes, and the values of RGB masks whose
three channels are equal. All others hold colours.
"""

import dataclasses
import os

import numpy as np

from danseg.errors import UserError, reason_of
from danseg.io.image_headers import UnusableImage, require_whole
from danseg.io.images import decode_whole, sample_bits
from danseg.io.source_files import read_file
from danseg.label_maps.label_png import UnusableLabelMap, decode_label_map

MOST = 2**16  # ids are below
_MOST_DIFFERENT = 4096  # ids or colours in one mask: far more than there are classes
_LOSSLESS = ("PNG", "BMP", "GIF", "TIFF", "PPM")


@dataclasses.dataclass(frozen=True)
class MaskValues:
    """What one mask holds.

    Attributes:
        size: height and width in pixels.
        ids: pixels of each id; None if the mask holds colours.
        colours: pixels of each colour, as 0xRRGGBB; of ids, the colours that the file shows for them.
        plain: whether training reads the ids from this file as they are.
    """

    size: tuple[int, int]
    ids: dict[int, int] | None
    colours: dict[int, int]
    plain: bool


class RefusedMask(UserError):
    """A mask of a kind that cannot hold ids or colours exactly.

    Attributes:
        reason: what is wrong, the same for all files of this kind.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def look_at(path: str | os.PathLike) -> MaskValues:
    """What a mask holds.

    Raises:
        RefusedMask: it cannot be read, or is of a kind that keeps neither ids nor colours exactly.
    """
    data = _read(path)
    ids, palette, colours = _decoded(data, path)
    if ids is None:
        assert colours is not None
        return MaskValues(colours.shape, None, _counted(colours, path), False)
    found = _counted(ids, path)
    try:
        decode_label_map(data, path)
        plain = True
    except UnusableLabelMap:
        plain = False
    shown = {int(palette[one]) if palette is not None else one * 0x010101: n for one, n in found.items()}
    return MaskValues(ids.shape, found, shown, plain)


def read_ids(path: str | os.PathLike) -> np.ndarray:
    """The ids of a mask that has some, (H, W) int64."""
    ids, _, _ = _decoded(_read(path), path)
    if ids is None:
        raise RefusedMask(f"{path} holds colours now; it changed while it was read")
    return ids


def read_colours(path: str | os.PathLike) -> np.ndarray:
    """The colours that a mask shows, (H, W) int64, as 0xRRGGBB."""
    ids, palette, colours = _decoded(_read(path), path)
    if colours is not None:
        return colours
    assert ids is not None
    return palette[ids] if palette is not None else ids * 0x010101


def hexadecimal(colour: int) -> str:
    """A colour in words: '128 64 128'."""
    return f"{colour >> 16} {colour >> 8 & 255} {colour & 255}"


def _read(path: str | os.PathLike) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise RefusedMask(f"the mask {path} cannot be read: {reason_of(error)}", reason_of(error)) from error


def _decoded(
    data: bytes, path: str | os.PathLike
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Ids and the palette's colours, or colours alone."""
    try:
        require_whole(data)
        image = decode_whole(data)
    except ValueError as error:
        reason = error.reason if isinstance(error, UnusableImage) else str(error)
        raise RefusedMask(f"the mask {path} cannot be read: {reason}", "cannot be decoded") from error
    kind = image.format or "unknown"
    lossless = kind in _LOSSLESS or kind == "WEBP" and b"VP8L" in data[:64]
    if not lossless or image.info.get("compression") == "jpeg":
        raise _refused(path, f"{kind}, whose compression changes ids and colours; export the masks as PNG")
    bits = sample_bits(image, data)
    if image.mode in ("LA", "PA", "RGBA"):
        alpha = np.asarray(image.getchannel("A"))
        if alpha.min() < 255:
            raise _refused(path, "see-through pixels (alpha), of which no class is known; save without alpha")
        image = image.convert({"LA": "L", "PA": "RGB", "RGBA": "RGB"}[image.mode])
    if image.mode == "P":
        stored = np.array(image.getpalette("RGB"), np.int64).reshape(-1, 3)
        palette = np.zeros(256, np.int64)
        palette[: len(stored)] = _packed(stored)
        return np.asarray(image).astype(np.int64), palette, None
    if image.mode in ("1", "L"):
        if image.mode == "L" and bits in (2, 4):
            raise _refused(path, f"grey of {bits} bits, which readers stretch to 0..255; save it with 8 bits")
        return np.asarray(image).astype(np.int64), None, None
    if image.mode.startswith("I"):
        ids = np.asarray(image).astype(np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= MOST):
            raise _refused(path, f"ids beyond {MOST - 1}; number the classes from 0")
        return ids, None, None
    if image.mode != "RGB" or bits > 8:
        raise _refused(
            path, f"{image.mode} samples of {bits} bits; save ids in grey or colours in RGB, 8 bits"
        )
    packed = _packed(np.asarray(image).astype(np.int64))
    grey = packed & 255
    return (grey, None, None) if (packed == grey * 0x010101).all() else (None, None, packed)


def _packed(colours: np.ndarray) -> np.ndarray:
    return colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]


def _refused(path: str | os.PathLike, reason: str) -> RefusedMask:
    return RefusedMask(f"the mask {path} is or holds {reason}", reason)


def _counted(values: np.ndarray, path: str | os.PathLike) -> dict[int, int]:
    found, counts = np.unique(values, return_counts=True)
    if len(found) > _MOST_DIFFERENT:
        raise _refused(
            path,
            f"more than {_MOST_DIFFERENT} different values, as photographs, smoothed edges and measurements "
            "have; export masks in which each class has one",
        )
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
