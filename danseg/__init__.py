"""Semantic segmentation whose context comes from exact, linear-memory attention.

``import danseg`` registers danseg's heads, datasets, metrics and hooks with mmseg when
mmseg is installed, and stays silent when it is not: ``danseg.ops`` and
``danseg.attention`` need torch alone.
"""

import contextlib
import importlib.util
import io
import warnings

from danseg.version import __version__

__all__ = ["__version__"]

if importlib.util.find_spec("mmseg") is not None:
    # On import mmcv warns that it has no compiled ops, which danseg never needs, and mmseg
    # prints that a commercial data loader is absent. Neither tells a user anything.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")
        from danseg import mmcv_ops

        mmcv_ops.install()  # before the first import of mmseg's parts
        from danseg import (  # noqa: F401  (registration)
            backbones,
            datasets,
            engine,
            evaluation,
            heads,
            registry,
            segmentors,
            visualization,
        )
