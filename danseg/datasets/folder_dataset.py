"""A folder of images and a folder of labels whose files say with any ids which class a pixel has."""

from collections.abc import Sequence

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from danseg.datasets.metainfo import class_names


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """mmseg's ``BaseSegDataset`` with the ids of the classes in the label files.

    A mask of 0 and 255, for example, would lose its second class, because 255 is the id that is ignored::

        dict(type="FolderDataset", metainfo=dict(classes=("land", "water")), label_ids=(0, 255), ...)

    The same ids hold in training, in evaluation and in the check of the data set, which refuses every other
    id but ``ignore_index``. Predictions hold the classes' own ids, 0 to C - 1.

    Args:
        label_ids: the id of each class in the label files, from 0 to 255, in the order of the classes; None
            if they are 0 to C - 1.
        void_ids: more ids in the label files that mean "no class", such as the border of a trimap.
        **kwargs: arguments of mmseg's ``BaseSegDataset``; ``metainfo`` has to name the classes.

    Raises:
        ValueError: ``label_ids`` does not fit the classes, an id occurs twice or is none, or
            ``reduce_zero_label`` contradicts.
    """

    label_map: dict[int, int] | None  # set by mmseg's base class; loading replaces ids by it
    # What each id that the label files may hold stands for: a class, or ``ignore_index`` for none. None: the
    # ids are those of the classes.
    file_ids: dict[int, int] | None = None

    def __init__(
        self, *, label_ids: Sequence[int] | None = None, void_ids: Sequence[int] = (), **kwargs
    ) -> None:
        # Load lazily at first: the label map must be complete before the list of files is made.
        lazy_init = kwargs.pop("lazy_init", False)
        super().__init__(lazy_init=True, **kwargs)
        self.label_ids: tuple[int, ...] | None = None
        self.void_ids = tuple(void_ids)
        if label_ids is not None or void_ids:
            classes = class_names(type(self).__name__, self.metainfo.get("classes"))
            self.label_ids = tuple(range(len(classes)) if label_ids is None else label_ids)
            self._check_ids(self.label_ids, classes)
            void = dict.fromkeys((self.ignore_index, *self.void_ids), int(self.ignore_index))
            self.set_file_ids({**void, **{one: number for number, one in enumerate(self.label_ids)}})
        if not lazy_init:
            self.full_init()

    def set_file_ids(self, file_ids: dict[int, int]) -> None:
        """Set what ids in the files stand for, and the label map.

        ``metainfo`` lacks the map: the data sets in a ConcatDataset may differ in it.
        """
        self.file_ids = file_ids
        # An id that is not listed must not count as the class of that number. Ids above stay out of range.
        ignored = dict.fromkeys(range(len(self.metainfo["classes"])), int(self.ignore_index))
        changed = {old: new for old, new in file_ids.items() if old in ignored or old != new}
        self.label_map = {**ignored, **changed}

    def how_to_allow(self) -> str:
        """How to make an id one that the label files may hold, for messages."""
        return (
            f"the data set has label_ids={self.label_ids} and void_ids={self.void_ids}: list the id of "
            "every class in the former, and ids that mean no class in the latter"
        )

    def _check_ids(self, label_ids: tuple[int, ...], classes: tuple[str, ...]) -> None:
        ids = label_ids + self.void_ids
        if not all(isinstance(one, int) and 0 <= one <= 255 for one in ids) or len(set(ids)) < len(ids):
            raise ValueError(
                f"label_ids={label_ids}, void_ids={self.void_ids}: give different ids from 0 to 255"
            )
        if len(label_ids) != len(classes):
            raise ValueError(
                f"label_ids={label_ids} has {len(label_ids)} ids for {len(classes)} classes "
                f"({', '.join(classes)}): give one for each class, in their order"
            )
        if self.reduce_zero_label:
            raise ValueError(
                "label_ids and reduce_zero_label=True both say what ids mean: remove reduce_zero_label"
            )
