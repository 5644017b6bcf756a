"""Let the loading steps of mmcv and mmseg read what the check of a data set accepts, during a run too.

Files can change after their check. mmseg's steps wait for ever for a FIFO, take a cut or swapped file for
another picture, and let a label differ from its image in size. Here danseg's own readers take their place in
a pipeline: the numbers are the same, and what :mod:`danseg.datasets.check` would refuse is an error.
"""

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmseg.datasets.transforms import LoadAnnotations
from torch.utils.data import Dataset

from danseg.datasets.loading import load_picture
from danseg.datasets.storage import stored_bytes
from danseg.datasets.wrappers import inner_datasets
from danseg.label_maps.id_formats import loaded_ids
from danseg.label_maps.label_png import decode_label_map


def read_whole_files(dataset: Dataset) -> None:
    """Replace the loading steps of all data sets inside ``dataset``, those within test-time augmentation too.

    Steps of other classes, and those that decode labels in another way than mmseg's usual one, stay.
    """
    for part in inner_datasets(dataset):
        _replace(getattr(part, "pipeline", None))


def _replace(pipeline: Any) -> None:
    steps = getattr(pipeline, "transforms", None)
    if not isinstance(steps, list):
        return
    for number, step in enumerate(steps):
        kind = type(step)
        if isinstance(step, LoadImageFromFile) and kind.transform is LoadImageFromFile.transform:
            steps[number] = WholePicture(step)
        elif isinstance(step, LoadAnnotations) and _loads_usual_labels(step):
            steps[number] = WholeLabel(step)
        for inner in getattr(step, "subroutines", ()):
            _replace(inner)


def _loads_usual_labels(step: LoadAnnotations) -> bool:
    kind, base = type(step), LoadAnnotations
    own = kind.transform is base.transform and kind._load_seg_map is base._load_seg_map
    return own and step.imdecode_backend == "pillow"


class _Step:
    """A step in place of ``step``, which looks like it."""

    def __init__(self, step: Any) -> None:
        self.step = step

    def __repr__(self) -> str:
        return repr(self.step)


class WholePicture(_Step):
    """mmcv's LoadImageFromFile, by :func:`danseg.datasets.loading.load_picture`."""

    def __call__(self, results: dict) -> dict:
        results.update(load_picture(self.step, results["img_path"]))
        return results


class WholeLabel(_Step):
    """mmseg's LoadAnnotations, by :func:`danseg.label_maps.label_png.decode_label_map`."""

    def __call__(self, results: dict) -> dict:
        reduced = results.get("reduce_zero_label", False)
        if self.step.reduce_zero_label not in (None, reduced):
            return self.step(results)  # which refuses it
        path = results["seg_map_path"]
        label = decode_label_map(stored_bytes(path, self.step.backend_args), path)
        size = results.get("ori_shape")
        if size is not None and label.shape != tuple(size[:2]):
            raise ValueError(
                f"the image has {size[0]}x{size[1]} pixels, its label {label.shape[0]}x{label.shape[1]}: put "
                "the right label beside it"
            )
        ids = loaded_ids(reduced, results.get("label_map")).astype(np.uint8)
        results["gt_seg_map"] = cv2.LUT(label, ids)
        results.setdefault("seg_fields", []).append("gt_seg_map")
        return results
