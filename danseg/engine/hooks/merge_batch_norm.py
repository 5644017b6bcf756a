"""Merge the BatchNorm statistics of all processes."""

from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm


@HOOKS.register_module()
class MergeBatchNormHook(Hook):
    """Merges the BatchNorm statistics of all processes before each validation.

    Saving a checkpoint merges them as well (:meth:`danseg.engine.runner.DansegRunner.save_checkpoint`), so a
    validation gives the same scores as the checkpoint saved at the same iteration.
    """

    def before_val_epoch(self, runner: Any) -> None:
        average_batch_norm(runner.model)


def average_batch_norm(model: torch.nn.Module) -> None:
    """Merge the BatchNorm statistics of all processes, and give the result to each of them.

    Plain BatchNorm sees only the images of its own process, so the running statistics drift apart although
    the weights do not. The merged mean is the mean of the means. The merged variance is the mean of the
    variances plus the variance of the means, which is the variance over the images of all processes.
    Statistics that already agree (SyncBatchNorm, a second call) do not change, not even in the last bit. With
    one process this function does nothing.
    """
    _, world_size = get_dist_info()
    if world_size == 1:
        return
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    statistics = [
        (norm.running_mean, norm.running_var)
        for norm in norms
        if norm.running_mean is not None and norm.running_var is not None
    ]
    if not statistics:
        return

    def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
        torch_dist.all_reduce(values)
        return values / world_size

    # float64, so that averaging equal float32 numbers gives back the same number
    means = torch.cat([mean for mean, _ in statistics]).double()
    variances = torch.cat([variance for _, variance in statistics]).double()
    mean = mean_over_processes(means.clone())
    variance = mean_over_processes(variances + (means - mean) ** 2)
    sizes = [len(own_mean) for own_mean, _ in statistics]
    merged = zip(mean.split(sizes), variance.split(sizes), strict=True)
    for (own_mean, own_variance), (merged_mean, merged_variance) in zip(statistics, merged, strict=True):
        own_mean.copy_(merged_mean)
        own_variance.copy_(merged_variance)
