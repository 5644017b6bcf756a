"""What a picture may be that is given to :mod:`danseg.apis`, and which pixels it stands for.

* A path (``str`` or ``pathlib.Path``), or the content of a file (``bytes``, ``bytearray``, ``memoryview``):
  read as the first step of the config's test pipeline reads files (:mod:`danseg.datasets.loading`).
* A NumPy array: (H, W) or (H, W, 1) grey, (H, W, 3) colours, (H, W, 4) with alpha, in uint8, or the bands and
  types that the pipeline's files have. Any strides; it may be read-only, and is never written to.
* A ``torch.Tensor`` (C, H, W), otherwise as an array; on any device, and no gradient goes through it.
* A ``PIL.Image.Image`` of any mode, turned by its EXIF orientation where the pipeline turns files.

The pipeline's rules hold for all: alpha is dropped, and more than 8 bits are refused, unless it keeps them.
"""

import contextlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from danseg.datasets.loading import keeps_values, load_picture, require_finite, turns
from danseg.errors import UserError, reason_of

#: What a picture may be.
Picture: TypeAlias = str | Path | bytes | bytearray | memoryview | np.ndarray | Tensor | Image.Image
#: Orders of the colours in arrays and tensors.
CHANNEL_ORDERS = ("rgb", "bgr")
_KINDS = "a path, the bytes of a file, a NumPy array, a tensor or a PIL image"
# Modes that are taken as they are, by what they become with alpha and without; all others become RGB.
_AS_THEY_ARE = ("L", "RGB", "I", "F")
_WITH_ALPHA = {"LA": "L", "RGBA": "RGB"}
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_CHANNELS = (1, 3, 4)  # of an array; a tensor whose last dimension is one of them has them last


def load(loader: Any, image: Picture, *, channel_order: str = "rgb", unit_range: bool = False) -> dict:
    """Load a picture of any kind with the step of a pipeline that loads pictures.

    Args:
        loader: from :func:`danseg.datasets.loading.loading_step`.
        image: the picture.
        channel_order: "rgb" or "bgr", the order of the colours in an array or a tensor; the other kinds know
            theirs. Alpha is the last channel in both.
        unit_range: the floating-point numbers of an array or a tensor lie in 0..1 and stand for 0..255.

    Returns:
        As :func:`danseg.datasets.loading.load_picture`.

    Raises:
        UserError: a file, its content or a PIL image is missing, damaged or refused by the pipeline's rules.
        ValueError: the picture is of another kind, shape or type, ``channel_order`` is none of the two, or it
            is not known what the step makes of pixels.
    """
    if channel_order not in CHANNEL_ORDERS:
        raise ValueError(f"channel_order must be one of {', '.join(CHANNEL_ORDERS)}, got {channel_order!r}")
    if isinstance(image, (str, Path)):
        return load_picture(loader, image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return load_picture(loader, bytes(image))
    if isinstance(image, Image.Image):
        return load_picture(loader, _pixels_of_pil(loader, image))
    if isinstance(image, (list, tuple)):
        raise ValueError(
            f"image must be a single picture here, got a {type(image).__name__} of {len(image)}; predict and "
            "Segmenter take lists of pictures"
        )
    if isinstance(image, Tensor):
        pixels = _pixels_of_tensor(image)
    elif isinstance(image, np.ndarray):
        pixels = image
    else:
        raise ValueError(f"image must be {_KINDS} (several as a list), got {type(image).__name__}")
    if np.ma.is_masked(pixels):
        raise ValueError("image has masked pixels, of which a network knows nothing; fill them first")
    if np.issubdtype(pixels.dtype, np.floating):
        if unit_range:
            pixels = _eight_bits(pixels)
        elif not keeps_values(loader):
            raise ValueError(
                f"image must be uint8, 0 to 255, got {image.dtype}; if its values lie in 0..1, pass "
                "unit_range=True"
            )
    return load_picture(loader, pixels if channel_order == "rgb" else _from_bgr(pixels))


def _pixels_of_tensor(image: Tensor) -> np.ndarray:
    if image.layout != torch.strided or image.is_quantized or image.is_meta:
        raise ValueError(
            f"image must be a tensor of plain numbers, got one of {image.dtype} with layout {image.layout} "
            f"on {image.device}; convert it (to_dense, dequantize) or give an array"
        )
    if image.dim() != 3 or image.shape[-1] in _CHANNELS:
        raise ValueError(
            f"image must be a tensor (C, H, W), got {tuple(image.shape)}; put the channels first by "
            ".permute(2, 0, 1), and give several images as a list of such tensors. A picture of no more than "
            "four columns is ambiguous: give it as an array (H, W, C)"
        )
    image = image.detach().cpu()
    if image.dtype == torch.bfloat16:  # which NumPy does not have
        image = image.float()
    return image.permute(1, 2, 0).resolve_conj().resolve_neg().numpy()  # (H, W, C)


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    require_finite(pixels, "image", ValueError)
    if pixels.size and not 0 <= pixels.min() <= pixels.max() <= 1:
        raise ValueError(
            f"image must lie in 0..1 with unit_range=True, got values from {pixels.min():g} to "
            f"{pixels.max():g}; leave unit_range out for other values, and undo a normalisation"
        )
    return np.rint(pixels.astype(np.float32) * 255).astype(np.uint8)


def _from_bgr(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim != 3 or pixels.shape[2] == 1:
        return pixels  # grey, or refused when it is loaded
    if pixels.shape[2] not in _CHANNELS:
        raise ValueError(
            f"channel_order='bgr' is for 3 channels, or 4 with alpha, got {pixels.shape}; give other bands "
            "in the order of the images of training"
        )
    return pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def _pixels_of_pil(loader: Any, image: Image.Image) -> np.ndarray:
    """The pixels of a PIL image, as an array that stands for them to ``loader``."""
    # Until it is loaded, a picture tells whether Pillow will cut 16 bits a colour to 8.
    deep = any(";16" in str(tile[-1]) for tile in getattr(image, "tile", ()))
    if deep and not image.mode.startswith("I"):
        raise UserError(
            f"{named(image)} has 16 bits a channel, of which Pillow keeps 8; give the path of its file"
        )
    try:
        image.load()
        if turns(loader):
            # Damaged notes about an image are no reason to refuse it.
            with contextlib.suppress(Exception):
                image = ImageOps.exif_transpose(image)
        return _array_of(image, keeps_alpha=keeps_values(loader))
    except Exception as error:  # Pillow's decoders raise almost anything on damaged data
        raise UserError(f"{named(image)} cannot be read: {reason_of(error)}") from error


def named(image: Picture) -> str:
    """What messages call a picture."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return f"image of {len(bytes(image))} bytes"
    if isinstance(image, Image.Image):
        name = getattr(image, "filename", "")
        return f"image {name or f'(PIL, {image.mode}, {image.width}x{image.height})'}"
    return f"image {image}" if isinstance(image, (str, Path)) else "image"


def _array_of(image: Image.Image, keeps_alpha: bool) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)  # from either order of bytes
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode in _WITH_ALPHA:
        image = image.convert("RGBA" if keeps_alpha else _WITH_ALPHA[image.mode])
    elif image.mode not in _AS_THEY_ARE:
        image = image.convert("RGB")
    return np.asarray(image)
