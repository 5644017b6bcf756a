"""Mixed precision: ``--amp`` on GPUs and on CPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from danseg.errors import UserError


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Forward passes under bfloat16 autocast, on the device of the model.

    bfloat16 has the exponent range of float32, so that no loss scaling is needed, which is what
    ties mmengine's ``AmpOptimWrapper`` to accelerators.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield


def use_mixed_precision(config: Config, dtype: str) -> None:
    """Make the config's optimiser wrapper train in ``dtype``.

    Args:
        config: changed in place.
        dtype: "float16", "bfloat16", or "auto": float16 on CUDA, bfloat16 on CPU.

    Raises:
        UserError: float16 on CPU, or an optimiser wrapper that already has a precision of its own.
    """
    device = get_device()
    if dtype == "auto":
        dtype = "float16" if device == "cuda" else "bfloat16"
    if dtype == "float16" and device == "cpu":
        raise UserError("--amp float16 needs a GPU; on CPU use --amp bfloat16")
    wrapper = config.optim_wrapper
    kind = wrapper.get("type", "OptimWrapper")
    if kind not in ("OptimWrapper", "AmpOptimWrapper", "BFloat16OptimWrapper"):
        raise UserError(f"--amp cannot change optim_wrapper.type={kind!r}; it replaces 'OptimWrapper'")
    for key in ("dtype", "loss_scale"):
        wrapper.pop(key, None)
    if dtype == "bfloat16":
        wrapper["type"] = "BFloat16OptimWrapper"
    else:
        wrapper.update(type="AmpOptimWrapper", dtype="float16", loss_scale="dynamic")
