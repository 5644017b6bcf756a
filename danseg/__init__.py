"""Semantic segmentation whose context comes from exact, linear-memory attention.

``import danseg`` registers danseg's heads, datasets, metrics and hooks with mmseg when
mmseg is installed, and stays silent when it is not: ``danseg.ops`` and
``danseg.attention`` need torch alone.
"""

import importlib.util
import warnings

from danseg.version import __version__

__all__ = ["__version__"]

if importlib.util.find_spec("mmseg") is not None:
    with warnings.catch_warnings():
        # mmcv warns on import that it was built without compiled ops; danseg needs none.
        warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")
        from danseg import datasets, engine, evaluation, heads  # noqa: F401  (registration)
