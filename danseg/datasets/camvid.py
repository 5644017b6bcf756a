"""CamVid with the 11 classes that segmentation papers report.

Brostow, Fauqueur, Cipolla: "Semantic object classes in video: A high-definition ground truth
database", Pattern Recognition Letters 30(2), 2009. The grouping of its 32 labels into 11 classes, their
order and colours, and the split into 367 training, 101 validation and 233 test frames of 360x480 pixels
are those that SegNet (arXiv:1511.00561) made customary.
"""

import os
from pathlib import Path

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from danseg.known_datasets import known_dataset

_RECORD = known_dataset("camvid")
_SUFFIXES = _RECORD.image_suffixes


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid in the layout ``train/ trainannot/ val/ valannot/ test/ testannot/``.

    An image is a PNG or a JPEG; a folder may mix both. Its label is the PNG of the same name in the folder
    with ``annot`` appended. Label values 0 to 10 are the classes below; 11 is void and becomes
    ``ignore_index`` when a label is loaded.

    Args:
        data_prefix: Folders of images and labels below ``data_root``. Default: the training split.
        **kwargs: Arguments of mmseg's ``BaseSegDataset``, except ``img_suffix``: the suffix is found for
            each file.
    """

    METAINFO = dict(
        classes=(
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )

    label_map: dict[int, int] | None  # set by mmseg's base class

    def __init__(self, data_prefix: dict | None = None, **kwargs) -> None:
        if data_prefix is None:
            data_prefix = _RECORD.data_prefix("train")
        if "img_suffix" in kwargs:
            raise ValueError(
                f"CamVidDataset takes images with either of {_SUFFIXES}, decided file by file; "
                f"remove img_suffix={kwargs['img_suffix']!r}"
            )
        # Load lazily at first: the label map must be complete before the list of files is made.
        lazy_init = kwargs.pop("lazy_init", False)
        super().__init__(data_prefix=data_prefix, lazy_init=True, **kwargs)
        # mmseg makes a map only if a subset of the classes was chosen, and never maps void.
        void = len(self.METAINFO["classes"])
        self.label_map = {**(self.label_map or {}), void: self.ignore_index}
        self._metainfo["label_map"] = self.label_map
        if not lazy_init:
            self.full_init()

    def load_data_list(self) -> list[dict]:
        """List the pairs named in ``ann_file`` (one stem per line), or else every image of the folder.

        Returns:
            One dict per image, as mmseg's loading transforms expect it. The order is that of ``ann_file``,
            or else alphabetical.

        Raises:
            FileNotFoundError: A folder, the ``ann_file`` or an image it names is missing.
            ValueError: Two images have the same name, so it is unclear which one the label belongs to.
        """
        image_dir = Path(self.data_prefix["img_path"])
        label_dir = self.data_prefix.get("seg_map_path")
        images: dict[str, Path] = {}
        for entry in sorted(os.scandir(image_dir), key=lambda entry: entry.name):
            path = Path(entry.path)
            if path.suffix not in _SUFFIXES or path.name.startswith("."):
                continue
            if path.stem in images:
                raise ValueError(
                    f"{images[path.stem]} and {path.name} stand for the same frame; remove one of them"
                )
            images[path.stem] = path

        stems = list(images)
        if self.ann_file:
            lines = Path(self.ann_file).read_text(encoding="utf-8").splitlines()
            stems = [line.strip() for line in lines if line.strip()]
            missing = [stem for stem in stems if stem not in images]
            if missing:
                raise FileNotFoundError(
                    f"{self.ann_file} names {len(missing)} frames that {image_dir} lacks, the first is "
                    f"{missing[0]!r} (looked for {' and '.join(_SUFFIXES)})"
                )

        data_list = []
        for stem in stems:
            info = dict(
                img_path=str(images[stem]),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            if label_dir is not None:
                info["seg_map_path"] = str(Path(label_dir) / (stem + self.seg_map_suffix))
            data_list.append(info)
        return data_list
