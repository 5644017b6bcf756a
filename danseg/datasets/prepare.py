"""Bring a data set into the tree that the configs expect, and check it: a function a data set.

Every function can be called again: what is there already is kept, what is missing is added. A file appears
whole or not at all, and nothing of the user's is ever overwritten.
"""

from danseg.datasets.prepare_ade20k import ade20k
from danseg.datasets.prepare_camvid import camvid
from danseg.datasets.prepare_cityscapes import cityscapes
from danseg.datasets.prepare_demo import demo

__all__ = ["ade20k", "camvid", "cityscapes", "demo"]
