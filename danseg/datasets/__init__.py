"""Datasets that mmseg lacks, and what gets any dataset ready: preparing and checking.

Importing this package registers :class:`CamVidDataset` with mmseg.
"""

from danseg.errors import require_mmseg

require_mmseg("danseg.datasets")

from danseg.datasets.camvid import CamVidDataset  # noqa: E402
from danseg.datasets.check import DatasetReport, check_dataset  # noqa: E402

__all__ = ["CamVidDataset", "DatasetReport", "check_dataset"]
