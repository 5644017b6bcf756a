"""Mixed-precision training in bfloat16, also on CPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Run forward passes under bfloat16 autocast, on the device of the model.

    bfloat16 has the exponent range of float32, so it needs no loss scaling. Loss scaling is why mmengine's
    ``AmpOptimWrapper`` needs an accelerator.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
