"""Load a picture as a config's pipeline loads its files; all of danseg that predicts reads pictures here.

The first step of a test pipeline decides what the network sees: how many channels, in which order, of which
numbers. mmseg's usual one, ``LoadImageFromFile``, reads 8-bit colours by the rules in
:mod:`danseg.io.images`. Its ``color_type`` says what else it may read: "grayscale" gives one channel,
"unchanged" keeps grey, alpha and 16 bits as they are and turns nothing but TIFFs.
"""

from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmseg.datasets.transforms import LoadImageFromNDArray
from mmseg.registry import TRANSFORMS
from PIL import UnidentifiedImageError

from danseg.datasets.storage import stored_bytes
from danseg.datasets.transforms import LoadTrainingCrop
from danseg.errors import UserError, reason_of
from danseg.io.image_headers import Content, UnusableImage, orientation, require_whole
from danseg.io.images import check_bands, decode_image_rows, decode_whole
from danseg.io.jpeg import is_doubtful

# Steps that give the bands as the file stores them.
_AS_STORED = ("LoadImageFromNpyFile", "LoadSingleRSImageFromFile")
# Conversions of (H, W), (H, W, 3) RGB and (H, W, 4) RGBA by color_type: what its files give.
_COLOURS: dict[int, int | None] = {1: cv2.COLOR_GRAY2BGR, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGR}
_CONVERSIONS: dict[str, dict[int, int | None]] = {
    "color": _COLOURS,
    "color_ignore_orientation": _COLOURS,
    "grayscale": {1: None},
    "grayscale_ignore_orientation": {1: None},
    "unchanged": {1: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA},
}
_DEEP_TYPES = (np.uint8, np.uint16, np.int16, np.float32)


def loading_step(pipeline: Any) -> Any:
    """The step of a pipeline that loads pictures: its first one, built if it is still a config.

    Raises:
        UserError: there is no such step, or it cannot be built.
    """
    first = next(iter(pipeline), None)
    if first is None:
        raise UserError(
            "the pipeline has no step; its first one has to load the image, as LoadImageFromFile does"
        )
    try:
        return TRANSFORMS.build(first) if isinstance(first, dict) else first
    except Exception as error:  # a step may raise anything
        raise UserError(f"the first step of the pipeline, {first}, cannot be built: {error}") from error


def is_known(loader: Any) -> bool:
    """Whether it is known what a step makes of a file and of an array."""
    return takes_bytes(loader) or keeps_stored_bands(loader)


def takes_bytes(loader: Any) -> bool:
    """Whether a step can be given the content of a file, or else its path alone."""
    return loads_colours(loader) or _is_mmcvs(loader)


def load_picture(loader: Any, source: str | Path | bytes | np.ndarray) -> dict:
    """Load a file, or take bytes or the pixels of an array as if a file held them.

    Args:
        loader: from :func:`loading_step`.
        source: a file, its content, or an array: (H, W) or (H, W, 1) grey, (H, W, 3) RGB, (H, W, 4) RGBA, or
            all bands where the step loads all; uint8, or what else the step keeps.

    Returns:
        The results of the step: ``img``, (H, W) or (H, W, C), BGR where it has colours, ``img_path``,
        ``img_shape`` and ``ori_shape``. A file that the step turns by its EXIF orientation has the size of
        the upright picture.

    Raises:
        UserError: the file is missing, damaged, or refused as :mod:`danseg.io.images` says.
        ValueError: the array has another shape or type than the step's files, or it is not known what the
            step makes of arrays or bytes.
    """
    if isinstance(source, (str, Path)):
        results = _from_file(loader, str(source), f"image {source}")
        require_finite(results["img"], f"image {source}", UserError)
    elif isinstance(source, bytes):
        results = _from_file(loader, source, f"image of {len(source)} bytes")
        require_finite(results["img"], f"image of {len(source)} bytes", UserError)
    else:
        results = _from_array(loader, source)
        require_finite(results["img"], "image", ValueError)
    return results


def require_finite(pixels: np.ndarray, what: str, error: type[Exception]) -> None:
    """Raise the error for pixels that hold nan or inf, of which a network makes labels without meaning."""
    if np.issubdtype(pixels.dtype, np.floating) and not np.isfinite(pixels).all():
        raise error(f"{what} holds values that are not finite (nan or inf); give these pixels a number")


def described(loader: Any) -> str:
    """A loading step in a few words, for messages."""
    said = f"color_type={loader.color_type!r}" if _is_mmcvs(loader) else ""
    return f"{type(loader).__name__}({said})"


def loads_colours(loader: Any) -> bool:
    """Whether a step reads files as :func:`danseg.io.images.decode_image_rows` does."""
    return isinstance(loader, LoadTrainingCrop) or (
        _is_mmcvs(loader) and loader.color_type == "color" and _backend(loader) == "cv2"
    )


def turned_by(loader: Any, data: Content) -> int:
    """The EXIF orientation by which a step turns the file ``data``, 2 to 8; 1 if it does not.

    OpenCV and Pillow turn a TIFF whatever ``color_type`` says.
    """
    is_tiff = data[:2] in (b"II", b"MM")
    return orientation(data) if turns(loader) or (is_tiff and _may_turn(loader)) else 1


def turns(loader: Any) -> bool:
    """Whether a step turns pictures by their EXIF orientation, of any format."""
    return _may_turn(loader) and getattr(loader, "color_type", "color") in ("color", "grayscale")


def _may_turn(loader: Any) -> bool:
    return loads_colours(loader) or (_is_mmcvs(loader) and _backend(loader) in ("cv2", "pillow"))


def keeps_values(loader: Any) -> bool:
    """Whether a step keeps alpha, further bands and more than 8 bits, or else makes 8-bit colours or grey."""
    return keeps_stored_bands(loader) or getattr(loader, "color_type", None) == "unchanged"


def keeps_stored_bands(loader: Any) -> bool:
    """Whether a step gives all bands in the order of the file."""
    return type(loader).__name__ in _AS_STORED or (_is_mmcvs(loader) and _backend(loader) == "tifffile")


def shown(loader: Any, image: np.ndarray) -> np.ndarray:
    """The picture to draw on, (H, W, 3) uint8 RGB, of an ``img`` that :func:`load_picture` has loaded.

    Of more than three channels the first three are shown. Values that are not 8 bits are stretched so that
    the picture's least is black and its greatest white.
    """
    image = image if image.ndim == 3 else image[..., None]
    if image.dtype != np.uint8:
        least, greatest = float(image.min()), float(image.max())
        scale = 255 / (greatest - least) if greatest > least else 0.0
        image = ((image.astype(np.float64) - least) * scale).round().astype(np.uint8)
    if image.shape[2] < 3:
        return np.repeat(image[..., :1], 3, axis=2)
    image = image[..., :3]
    return np.ascontiguousarray(image if keeps_stored_bands(loader) else image[..., ::-1])


def load_shown(loader: Any, source: str | Path | np.ndarray) -> np.ndarray:
    """Load a picture to draw on, as large as its label: :func:`load_picture`, then :func:`shown`."""
    return shown(loader, load_picture(loader, source)["img"])


def _is_mmcvs(loader: Any) -> bool:
    """Whether a step is mmcv's LoadImageFromFile, or a class that reads files the same way.

    mmseg's LoadImageFromNDArray, which takes pixels that were read, counts as the step that read them.
    """
    own = (LoadImageFromFile.transform, LoadImageFromNDArray.transform)
    return isinstance(loader, LoadImageFromFile) and type(loader).transform in own


def _backend(loader: Any) -> str:
    return loader.imdecode_backend or mmcv.image.io.imread_backend


def _from_file(loader: Any, source: str | bytes, what: str) -> dict:
    """Load a file, named by its path or given by its content; messages call it ``what``."""
    path = source if isinstance(source, str) else None
    if path is None and not takes_bytes(loader):
        raise ValueError(
            f"images are loaded by {described(loader)}, which takes no bytes; give the path of a file"
        )
    try:
        data = (
            stored_bytes(source, getattr(loader, "backend_args", None)) if isinstance(source, str) else source
        )
        results: dict[str, Any] = dict(img_path=path)
        if loads_colours(loader):
            if is_doubtful(data):
                decode_whole(data)  # which refuses what OpenCV guesses
            pixels, size = decode_image_rows(data)
            image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
            image = image.astype(np.float32) if getattr(loader, "to_float32", False) else image
            return dict(results, img=image, img_shape=size, ori_shape=size)
        _refuse(loader, data)
        loaded = {**results, **_decoded(loader, data)} if _is_mmcvs(loader) else loader(results)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{what} cannot be read: {reason_of(error)}") from error
    except Exception as error:  # whatever file, decoder or step may raise
        raise UserError(f"{what} cannot be read: {error or type(error).__name__}") from error
    if loaded is None or not isinstance(loaded.get("img"), np.ndarray):
        raise UserError(
            f"{what} cannot be read by {described(loader)}; is its first step the one that loads?"
        )
    return loaded


def _decoded(loader: Any, data: bytes) -> dict:
    """What mmcv's LoadImageFromFile makes of a file's content."""
    try:
        image = mmcv.imfrombytes(data, flag=loader.color_type, backend=loader.imdecode_backend)
    except UnidentifiedImageError:  # whose message names an object in memory
        image = None
    if image is None:
        raise UnusableImage("damaged", f"{len(data)} bytes that are no image or a damaged one")
    image = image.astype(np.float32) if loader.to_float32 else image
    return dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])


def _refuse(loader: Any, data: bytes) -> None:
    """Raise an error for a file that a step would cut to 8 bits, or read in part."""
    if not _is_mmcvs(loader) or _backend(loader) == "tifffile":
        require_whole(data)
    elif loader.color_type != "unchanged":
        decode_image_rows(data)  # what it refuses, the step would cut; what the step reads, it reads too
    elif _backend(loader) == "cv2":
        check_bands(data, every=True)
    else:
        require_whole(data)


def _from_array(loader: Any, pixels: Any) -> dict:
    if not isinstance(pixels, np.ndarray):
        raise ValueError(f"image must be a file's path or a NumPy array, got {type(pixels).__name__}")
    if pixels.ndim not in (2, 3) or not pixels.size:
        several = "; give several images as a list of arrays" if pixels.ndim == 4 else ""
        raise ValueError(
            f"image must be (H, W) or (H, W, channels), none of them 0, got {pixels.shape}{several}"
        )
    # A copy, because a later step may write into it.
    image = np.array(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels, order="C")
    if not is_known(loader):
        raise ValueError(
            f"images are loaded by {described(loader)}, which takes no array; give the path of a file"
        )
    if keeps_stored_bands(loader):
        conversion = None
    else:
        known = _CONVERSIONS[getattr(loader, "color_type", "color")]
        channels = 1 if image.ndim == 2 else image.shape[2]
        if channels not in known:
            shapes = {1: "(H, W)", 3: "(H, W, 3) RGB", 4: "(H, W, 4) RGBA"}
            allowed = " or ".join(shapes[count] for count in known)
            raise ValueError(
                f"image must be {allowed}, as {described(loader)} loads files, got {pixels.shape}"
            )
        conversion = known[channels]
    deep = keeps_values(loader)
    if image.dtype not in (_DEEP_TYPES if deep else (np.uint8,)):
        raise ValueError(
            f"image must be {'uint8, uint16, int16 or float32' if deep else 'uint8, 0 to 255'}, as its "
            f"pipeline loads files, got {image.dtype}; scale the values as those of training were"
        )
    image = image if conversion is None else cv2.cvtColor(image, conversion)
    if getattr(loader, "to_float32", False):
        image = image.astype(np.float32)
    size = image.shape[:2]
    return dict(img_path=None, img=image, img_shape=size, ori_shape=size)
