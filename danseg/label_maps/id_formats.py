"""Label maps as PNG files: which number stands for which class, reading and writing them.

Inside danseg a class is its train id, 0..C-1. Files use other numbers: the Cityscapes server
wants labelIds, the ADE20K server ids from 1. :class:`IdFormat` is one such convention.
"""

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np
from PIL import Image

from danseg.errors import UserError
from danseg.evaluation.confusion import name_ids
from danseg.label_maps.cityscapes_labels import CLASS_IDS, LABELS

VOID = 255  # the train id that stands for "no class"

OUTPUT_FORMATS = ("plain", "cityscapes", "ade20k")


@dataclasses.dataclass(frozen=True)
class IdFormat:
    """Which 8-bit id stands for which class in a file.

    Args:
        name: for messages.
        class_ids: the id of every class, in the order of the train ids.
        void_ids: further ids that are allowed and name no class.
    """

    name: str
    class_ids: tuple[int, ...]
    void_ids: frozenset[int]

    @functools.cached_property
    def index(self) -> np.ndarray:
        """(256,) int64: id in the file -> class 0..C-1, C for the void ids, -1 for ids not allowed."""
        index = np.full(256, -1, dtype=np.int64)
        index[list(self.void_ids)] = len(self.class_ids)
        index[list(self.class_ids)] = np.arange(len(self.class_ids))
        return index

    def allowed(self) -> str:
        """The allowed ids in words: '0..18 (classes) and 255 (no class)'."""
        return f"{_ranges(self.class_ids)} (classes) and {_ranges(self.void_ids)} (no class)"

    def encode(self, train_ids: np.ndarray) -> np.ndarray:
        """Train ids (H, W), all in 0..C-1, as uint8 ids of this format."""
        return np.asarray(self.class_ids, dtype=np.uint8)[train_ids]

    def decode(self, ids: np.ndarray, source: str | os.PathLike) -> np.ndarray:
        """Ids (H, W) of this format, uint8, as uint8 train ids; void ids become 255.

        Raises:
            UserError: an id that is not allowed, with ``source`` named.
        """
        classes = self.index[ids]
        if (classes < 0).any():
            raise UserError(
                f"{source}: ids {name_ids(np.unique(ids[classes < 0]))} are not in the format "
                f"'{self.name}', which allows {self.allowed()}"
            )
        classes[classes == len(self.class_ids)] = VOID
        return classes.astype(np.uint8)


def _ranges(ids: tuple[int, ...] | frozenset[int]) -> str:
    """'7, 8, 11..13' for {7, 8, 11, 12, 13}."""
    runs: list[list[int]] = []
    for i in sorted(ids):
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return ", ".join(
        f"{run[0]}..{run[-1]}" if len(run) > 2 else ", ".join(str(i) for i in run) for run in runs
    )


def id_format(name: str, num_classes: int) -> IdFormat:
    """The format called ``name`` for ``num_classes`` classes.

    * ``plain``: the train ids themselves; 255 = no class. CamVid, and what one reads back oneself.
    * ``cityscapes``: labelIds, as the Cityscapes server and its evaluator expect them.
    * ``ade20k``: train id + 1, as the ADE20K server expects them; 0 = no class.

    Raises:
        UserError: an unknown name, or a number of classes that the format cannot hold.
    """
    if name not in OUTPUT_FORMATS:
        raise UserError(f"unknown format '{name}' for label maps; choose one of {', '.join(OUTPUT_FORMATS)}")
    if name == "cityscapes":
        if num_classes != len(CLASS_IDS):
            raise UserError(
                f"the format 'cityscapes' is for the 19 Cityscapes classes, the data set has {num_classes}; "
                "use 'plain'"
            )
        void = frozenset(label.id for label in LABELS) - set(CLASS_IDS)
        return IdFormat(name, CLASS_IDS, void)
    if not 1 <= num_classes <= 255:
        raise UserError(f"an 8-bit label map holds 1 to 255 classes, the data set has {num_classes}")
    if name == "ade20k":
        return IdFormat(name, tuple(range(1, num_classes + 1)), frozenset({0}))
    return IdFormat(name, tuple(range(num_classes)), frozenset({VOID}))


def prediction_name(image_path: str | os.PathLike, output_format: str) -> str:
    """The file name of the prediction for an image.

    ``cityscapes`` gives ``<city>_<sequence>_<frame>_pred_labelIds.png``, which the official
    evaluator finds for its ground truth by the first three parts; the other formats keep the
    image's own stem, as the ADE20K server requires.
    """
    stem = Path(image_path).stem
    if output_format == "cityscapes":
        return f"{stem.removesuffix('_leftImg8bit')}_pred_labelIds.png"
    return f"{stem}.png"


def write_label_map(path: str | os.PathLike, ids: np.ndarray) -> None:
    """Write uint8 ids (H, W) as an 8-bit single-channel PNG.

    The file appears whole or not at all, so that two ranks which were both given the same
    padded image cannot mix their bytes.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        Image.fromarray(np.ascontiguousarray(ids, dtype=np.uint8)).save(part, format="PNG")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def read_label_map(path: str | os.PathLike) -> np.ndarray:
    """The ids of an 8-bit single-channel image file as uint8 (H, W).

    Of a palette image the indices are taken, as the Cityscapes evaluator does.

    Raises:
        UserError: the file is missing, damaged, or holds colours or more than 8 bits.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode in ("L", "P"):
                return np.array(image, dtype=np.uint8)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file
        raise UserError(f"{path}: cannot be read as an image ({error}); write it again") from error
    what = {
        "1": "is a 1-bit mask",
        "I": "has more than 8 bits a pixel",
        "I;16": "has 16 bits a pixel",
        "I;16B": "has 16 bits a pixel",
        "LA": "has an alpha channel",
        "RGB": "is a 3-channel colour image",
        "RGBA": "is a 4-channel colour image",
    }.get(mode, f"is of the kind '{mode}'")
    raise UserError(
        f"{path}: {what}, a label map is an 8-bit PNG of one channel that holds class ids"
        + ("; this may be the coloured picture of the label map" if mode in ("RGB", "RGBA") else "")
    )


def read_prediction(path: str | os.PathLike, output_format: str, num_classes: int) -> np.ndarray:
    """Read back what was written in ``output_format``: uint8 train ids (H, W), 255 where no class."""
    return id_format(output_format, num_classes).decode(read_label_map(path), path)
