"""What a tool imports while it runs, imported once for all trials (see :mod:`fork_server`)."""

import contextlib
import gc
import importlib
import os

import torch

NAMES = [
    "danseg.registration",
    "danseg.apis",
    "danseg.engine.train",
    "danseg.engine.test",
    "danseg.evaluation.folders",
    "danseg.visualization",
    # These are imported while something is built, drawn or read for the first time.
    "torch._dynamo",
    "torch.distributed",
    "torch.utils.tensorboard",
    "yapf.yapflib.yapf_api",
    "mmengine.visualization.vis_backend",
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "rasterio",
    "kornia_rs",
    "safetensors.torch",
]

torch.set_num_threads(1)
import danseg  # noqa: E402, F401  (before mmseg: its original line needs a stand-in)

for name in NAMES:
    with contextlib.suppress(ImportError):  # what is not installed is missing in the trials too
        importlib.import_module(name)
assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked safely"
gc.collect()
gc.freeze()  # so that the trials share these pages
