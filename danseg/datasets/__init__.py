"""Datasets that mmseg lacks, and what gets any dataset ready: preparing and checking.

Importing this package registers :class:`CamVidDataset` with mmseg.
"""

try:
    import mmseg  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "mmseg":
        raise
    raise ModuleNotFoundError(
        "danseg's datasets plug into mmseg, which is not installed: pip install 'danseg[onedl]' "
        "(maintained line) or pip install 'danseg[openmmlab]' (original line)",
        name="mmseg",
    ) from error

from danseg.datasets.camvid import CamVidDataset
from danseg.datasets.check import DatasetReport, check_dataset

__all__ = ["CamVidDataset", "DatasetReport", "check_dataset"]
