"""One set of BatchNorm statistics for all processes."""

from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm


@HOOKS.register_module()
class MergeBatchNormHook(Hook):
    """Merges the processes' BatchNorm statistics before a validation.

    Checkpoints merge them as well (:meth:`danseg.engine.runner.DansegRunner.save_checkpoint`), so
    that the figures of a validation are those of the checkpoint saved beside it.
    """

    def before_val_epoch(self, runner: Any) -> None:
        average_batch_norm(runner.model)


def average_batch_norm(model: torch.nn.Module) -> None:
    """Give every process the BatchNorm statistics of all of them.

    Plain BatchNorm sees its own process's images only, so the running statistics drift apart
    although the weights do not. The merged mean is the mean of the means; the merged variance is
    the mean of the variances plus the variance of the means, which is the variance of all the
    images together. Statistics that agree already (SyncBatchNorm, a second call) stay as they are
    to the last bit. In a run of one process nothing happens.
    """
    _, world_size = get_dist_info()
    if world_size == 1:
        return
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        return

    def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
        torch_dist.all_reduce(values)
        return values / world_size

    # float64, so that averaging equal float32 numbers gives back the same number
    means = torch.cat([layer.running_mean for layer in layers]).double()
    variances = torch.cat([layer.running_var for layer in layers]).double()
    mean = mean_over_processes(means.clone())
    variance = mean_over_processes(variances + (means - mean) ** 2)
    sizes = [layer.num_features for layer in layers]
    for layer, layer_mean, layer_variance in zip(
        layers, mean.split(sizes), variance.split(sizes), strict=True
    ):
        layer.running_mean.copy_(layer_mean)
        layer.running_var.copy_(layer_variance)
