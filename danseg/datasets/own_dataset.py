"""A data set of one's own, as its ``dataset.yaml`` says."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mmseg.registry import DATASETS

from danseg.dataset_file import read_dataset_file
from danseg.datasets.folder_dataset import FolderDataset


@DATASETS.register_module()
class OwnDataset(FolderDataset):
    """A split of the data set that a ``dataset.yaml`` describes (:mod:`danseg.dataset_file`)::

        dict(type="OwnDataset", data_root="data/mine", split="train", pipeline=...)

    Names and colours of the classes, folders, pairs of images and masks, and what the ids in the masks stand
    for come from the file alone. The check of the data set allows the ids that the file lists and no other.

    Args:
        data_root: the folder of ``dataset.yaml``, or the file, which may be Ultralytics' YAML.
        split: "train", "val" or "test".
        pipeline, indices, test_mode, lazy_init, serialize_data, max_refetch: as of mmseg's
            ``BaseSegDataset``.

    Raises:
        UserError: there is no such file, or what it says is not right.
    """

    def __init__(
        self,
        *,
        data_root: str | os.PathLike,
        split: str,
        pipeline: Sequence[dict | Callable] = (),
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
        serialize_data: bool = True,
        max_refetch: int = 1000,
    ) -> None:
        self.file = read_dataset_file(data_root)
        self.split = split
        # Of Ultralytics' form images and masks may lie in several places around the file.
        images, masks = (
            (self.file.path.parent,) * 2 if self.file.images is None else (self.file.images, self.file.masks)
        )
        super().__init__(
            data_root=str(data_root),
            # What chooses the frames; absolute, as mmseg would look for it below data_root.
            ann_file=os.path.abspath(self.file.path),
            data_prefix=dict(img_path=os.path.abspath(images), seg_map_path=os.path.abspath(masks)),
            metainfo=dict(classes=self.file.names, palette=[list(colour) for colour in self.file.colours]),
            pipeline=list(pipeline),
            indices=indices,
            test_mode=test_mode,
            lazy_init=True,
            serialize_data=serialize_data,
            max_refetch=max_refetch,
        )
        self.set_file_ids(dict(self.file.label_ids))
        if not lazy_init:
            self.full_init()

    def how_to_allow(self) -> str:
        """How to make an id one that the masks may hold, for messages."""
        mend = "give such an id a class in its mapping, or list it in its ignore"
        if self.file.images is None:
            mend = "give such an id a class, or ignore_label, in its label_mapping"
        return f"{self.file.path} says which ids the masks hold: {mend}"

    def load_data_list(self) -> list[dict]:
        """The pairs of the split, in the file's order, as mmseg's loading transforms expect them.

        Raises:
            UserError: the file has no such split, or its list is missing, damaged or empty.
        """
        return [
            dict(
                img_path=str(Path(image)),
                seg_map_path=str(Path(mask)),
                label_map=self.label_map,
                reduce_zero_label=False,
                seg_fields=[],
            )
            for image, mask in self.file.pairs(self.split)
        ]
