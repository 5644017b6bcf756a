"""Data sets that mmseg lacks, faster loading for training, and tools that prepare and check data sets.

Importing this package registers :class:`CamVidDataset`, :class:`FolderDataset`, :class:`OwnDataset`,
:class:`VOC2012Dataset`, :class:`LoadTrainingCrop` and :class:`FastPhotoMetricDistortion` with mmseg.
"""

from danseg.errors import require_mmseg

require_mmseg("danseg.datasets")

from danseg.datasets.camvid import CamVidDataset  # noqa: E402
from danseg.datasets.check import DatasetReport, check_dataset  # noqa: E402
from danseg.datasets.folder_dataset import FolderDataset  # noqa: E402
from danseg.datasets.own_dataset import OwnDataset  # noqa: E402
from danseg.datasets.transforms import FastPhotoMetricDistortion, LoadTrainingCrop  # noqa: E402
from danseg.datasets.voc2012 import VOC2012Dataset  # noqa: E402

__all__ = [
    "CamVidDataset",
    "DatasetReport",
    "FastPhotoMetricDistortion",
    "FolderDataset",
    "LoadTrainingCrop",
    "OwnDataset",
    "VOC2012Dataset",
    "check_dataset",
]
