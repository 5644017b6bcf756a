"""Bring a data set into the folders that the configs expect, and check it: one function per data set.

Every function can be called again: it keeps the files that are there and adds the missing ones. It writes
each file whole or not at all, and never overwrites a user's file.
"""

from danseg.datasets.prepare_ade20k import ade20k
from danseg.datasets.prepare_aerial import aerial
from danseg.datasets.prepare_camvid import camvid
from danseg.datasets.prepare_cityscapes import cityscapes
from danseg.datasets.prepare_demo import demo
from danseg.datasets.prepare_folder import folder
from danseg.datasets.prepare_voc2012 import voc2012

__all__ = ["ade20k", "aerial", "camvid", "cityscapes", "demo", "folder", "voc2012"]
