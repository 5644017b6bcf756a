"""Reading images and writing pictures, with errors that name the file."""

import os
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from danseg.errors import UserError


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as (H, W, 3) uint8, RGB.

    Raises:
        UserError: the file is missing, or not an image that OpenCV can decode.
    """
    return cv2.cvtColor(_decode(Path(path), cv2.IMREAD_COLOR, "image"), cv2.COLOR_BGR2RGB)


def read_labels(path: str | Path) -> np.ndarray:
    """Read a label map as (H, W) uint8 ids, as they are in the file.

    Raises:
        UserError: the file is missing, cannot be decoded, or has not one byte a pixel.
    """
    labels = _decode(Path(path), cv2.IMREAD_UNCHANGED, "label map")
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise UserError(f"label map {path} holds {labels.shape} of {labels.dtype}; ids take one byte a pixel")
    return labels


def _decode(path: Path, flags: int, what: str) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"{what} {path} does not exist" + (" (it is a folder)" if path.is_dir() else ""))
    try:
        # np.fromfile + imdecode also reads paths that are not ASCII on every platform.
        pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), flags)
    except (cv2.error, OSError):
        pixels = None
    if pixels is None:
        raise UserError(
            f"{what} {path} cannot be read ({path.stat().st_size} bytes): it is not an image or it is "
            "damaged; replace the file"
        )
    return pixels


def picture_dir(path: str | Path) -> Path:
    """Make the folder that pictures go to, parents included.

    Raises:
        UserError: something that is not a folder is in the way, or it cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be a folder for pictures ({error.strerror}); name another folder"
        ) from error
    return path


def save_image(image: np.ndarray, path: str | Path) -> Path:
    """Write (H, W, 3) RGB or (H, W) uint8 as PNG; a picture of that name is replaced whole.

    Raises:
        UserError: the name belongs to something that is not a file, or it cannot be written.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return _replace(Path(path), cv2.imencode(".png", image)[1].tobytes())


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a matplotlib figure as PNG at the figure's own size and resolution.

    Raises:
        UserError: as :func:`save_image`.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return save_image(np.asarray(canvas.buffer_rgba())[..., :3].copy(), path)


def _replace(path: Path, data: bytes) -> Path:
    """Write beside the target, then rename: nobody ever sees half a picture."""
    if path.exists() and not path.is_file():
        raise UserError(
            f"{path} is not a file, so no picture is written there; move it or name another folder"
        )
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    return path
