"""Pascal VOC 2012's segmentation as it is published: frames listed in ImageSets/Segmentation, borders of 255.

Everingham et al.: "The Pascal Visual Object Classes Challenge: A Retrospective", International Journal of
Computer Vision 111, 2015.
"""

from mmseg.datasets import BaseSegDataset, PascalVOCDataset
from mmseg.registry import DATASETS

from danseg.known_datasets import known_dataset

_RECORD = known_dataset("voc2012")


@DATASETS.register_module()
class VOC2012Dataset(BaseSegDataset):
    """mmseg's ``PascalVOCDataset``, which fails without a message where a folder is missing.

    A palette PNG's indices are the ids: 0 is the background, 1 to 20 are the objects, 255 is the border
    around them and ignored.

    Args:
        ann_file: the list of frames. Default: the training split.
        data_prefix: folders of images and labels below ``data_root``.
        **kwargs: arguments of mmseg's ``BaseSegDataset``.
    """

    METAINFO = PascalVOCDataset.METAINFO

    def __init__(
        self, ann_file: str = _RECORD.lists["train"], data_prefix: dict | None = None, **kwargs
    ) -> None:
        prefix = _RECORD.data_prefix("train") if data_prefix is None else data_prefix
        super().__init__(ann_file=ann_file, data_prefix=prefix, **kwargs)
