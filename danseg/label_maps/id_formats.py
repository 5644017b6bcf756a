"""Which number in a label map stands for which class.

Inside danseg a class is its train id, 0..C-1. Files use other numbers: the Cityscapes server
wants labelIds, the ADE20K server ids from 1. :class:`IdFormat` is one such convention.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence

import numpy as np

from danseg.errors import UserError
from danseg.io.words import listed, ranges
from danseg.label_maps.cityscapes_labels import CLASS_IDS, LABELS

VOID = 255  # the train id that stands for "no class"

PREDICTION_IDS = ("labelIds", "trainIds")  # ids in prediction files: the data set's published ids, or 0..C-1
OUTPUT_FORMATS = ("plain", "cityscapes", "ade20k", "camvid")


@dataclasses.dataclass(frozen=True)
class IdFormat:
    """Which 8-bit id in a file stands for which class.

    Args:
        name: name of the format, for messages.
        class_ids: the id of every class, in the order of the train ids.
        void_ids: other allowed ids, which mean "no class".
        more_ids: further ids of classes, with the class.
    """

    name: str
    class_ids: tuple[int, ...]
    void_ids: frozenset[int]
    more_ids: Mapping[int, int] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def index(self) -> np.ndarray:
        """(256,) int64: id in the file -> class 0..C-1, C for void ids, -1 for ids that are not allowed."""
        index = np.full(256, -1, dtype=np.int64)
        index[list(self.void_ids)] = len(self.class_ids)
        index[list(self.class_ids)] = np.arange(len(self.class_ids))
        index[list(self.more_ids)] = list(self.more_ids.values())
        return index

    def choose(self, places: Sequence[int]) -> "IdFormat":
        """The format for some of the classes or another order: ``places`` of them among all.

        Each class keeps its id. The ids of classes that are not chosen stand for no class.
        """
        class_ids = tuple(self.class_ids[place] for place in places)
        more = {one: places.index(place) for one, place in self.more_ids.items() if place in places}
        left_out = {*self.class_ids, *self.more_ids} - {*class_ids, *more}
        return IdFormat(self.name, class_ids, self.void_ids | left_out, more)

    def allowed(self) -> str:
        """The allowed ids in words: '0 to 18 (classes) and 255 (no class)'."""
        void = f" and {ranges(self.void_ids)} (no class)" if self.void_ids else ""
        return f"{ranges((*self.class_ids, *self.more_ids))} (classes){void}"

    def encode(self, train_ids: np.ndarray) -> np.ndarray:
        """Convert train ids (H, W), all in 0..C-1, to uint8 ids of this format."""
        return np.asarray(self.class_ids, dtype=np.uint8)[train_ids]

    def decode(self, ids: np.ndarray, source: str | os.PathLike) -> np.ndarray:
        """Convert uint8 ids (H, W) of this format to uint8 train ids; void ids become 255.

        Raises:
            UserError: an id is not allowed; the message names ``source``.
        """
        classes = self.index[ids]
        if (classes < 0).any():
            raise UserError(
                f"{source}: ids {listed(np.unique(ids[classes < 0]))} are not in the format "
                f"'{self.name}', which allows {self.allowed()}"
            )
        classes[classes == len(self.class_ids)] = VOID
        return classes.astype(np.uint8)


def id_format(name: str, num_classes: int) -> IdFormat:
    """The format called ``name`` for ``num_classes`` classes.

    * ``plain``: the train ids themselves; 255 = no class. For your own use.
    * ``cityscapes``: labelIds, as the Cityscapes server and its evaluator expect them.
    * ``ade20k``: train id + 1, as the ADE20K server expects it; 0 = no class.
    * ``camvid``: the train ids; the number after the last one = no class, as in CamVid's published labels.

    Raises:
        UserError: the name is unknown, or the format cannot hold this number of classes.
    """
    if name not in OUTPUT_FORMATS:
        raise UserError(f"unknown format '{name}' for label maps; choose one of {', '.join(OUTPUT_FORMATS)}")
    if name == "cityscapes":
        if num_classes != len(CLASS_IDS):
            raise UserError(
                f"the format 'cityscapes' is for the {len(CLASS_IDS)} Cityscapes classes, the data set has "
                f"{num_classes}; use 'plain'"
            )
        void = frozenset(label.id for label in LABELS) - set(CLASS_IDS)
        return IdFormat(name, CLASS_IDS, void)
    if not 1 <= num_classes <= 255:
        raise UserError(f"an 8-bit label map holds 1 to 255 classes, the data set has {num_classes}")
    if name == "ade20k":
        return IdFormat(name, tuple(range(1, num_classes + 1)), frozenset({0}))
    return IdFormat(name, tuple(range(num_classes)), frozenset({num_classes if name == "camvid" else VOID}))


def chosen_format(name: str, num_classes: int, label_map: Mapping[int, int] | None) -> IdFormat:
    """The format called ``name`` for some of a data set's classes, as its ``label_map`` chooses them.

    Each of them keeps the id that the data set publishes, except in 'plain'.

    Raises:
        UserError: as :func:`id_format`.
    """
    places = {new: old for old, new in (label_map or {}).items() if new < num_classes}
    if not label_map or not places or name == "plain":
        return id_format(name, num_classes)
    return id_format(name, max(label_map) + 1).choose([places[new] for new in range(num_classes)])


def prediction_name(frame: str, output_format: str) -> str:
    """The file of the prediction for an image, whose name or path without suffix is ``frame``.

    ``cityscapes`` gives ``<city>_<sequence>_<frame>_pred_labelIds.png``; the official evaluator finds the
    prediction for a ground truth by the first three parts. The other formats keep the image's name, as the
    ADE20K server requires.
    """
    if output_format == "cityscapes":
        return f"{frame.removesuffix('_leftImg8bit')}_pred_labelIds.png"
    return f"{frame}.png"


def loaded_ids(reduce_zero_label: bool, label_map: dict[int, int] | None) -> np.ndarray:
    """What mmseg's loading turns each of the 256 possible ids of a label file into.

    Args:
        reduce_zero_label: whether 0 becomes 255, 255 stays, and all other ids decrease by one.
        label_map: replacements that are applied after that; ids it does not list stay the same.

    Returns:
        int64 (256,).
    """
    table: np.ndarray = np.arange(256)
    if reduce_zero_label:
        table = np.where((table == 0) | (table == 255), 255, table - 1)
    if label_map:
        table = np.array([label_map.get(int(i), i) for i in table])
    return table
