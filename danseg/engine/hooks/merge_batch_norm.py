"""Merge the BatchNorm statistics of all processes where they are looked at; each trains on with its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine.dist import all_gather_object, get_dist_info, get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from danseg.errors import UserError

_KEY = "batch_norms"  # of a checkpoint


@HOOKS.register_module()
class MergeBatchNormHook(Hook):
    """Merges the BatchNorm statistics of all processes for each validation and checkpoint.

    So a validation gives the same scores as the checkpoint saved at the same iteration. After it each process
    goes on with its own statistics: how often a training is validated or saved changes nothing in it. A
    checkpoint also holds each process's own, with which a resumed training goes on.
    """

    def __init__(self) -> None:
        self._own: torch.Tensor | None = None  # while the network has merged ones
        self._to_store: list[torch.Tensor] = []
        self._loaded: list[torch.Tensor] = []

    @contextmanager
    def merged(self, model: nn.Module) -> Iterator[None]:
        """Merge the statistics during the block. Every rank must call this."""
        before, own = self._own, _statistics(model)
        self._own = own if before is None else before
        average_batch_norm(model)
        try:
            yield
        finally:
            _set_statistics(model, own)
            self._own = before

    def gather(self, model: nn.Module) -> None:
        """Collect every rank's own statistics, before they are merged for a checkpoint, on every rank."""
        own = _statistics(model) if self._own is None else self._own
        every = all_gather_object(own.cpu())
        alike = all(torch.equal(every[0], one) for one in every)  # SyncBatchNorm, or a single process
        self._to_store = [] if alike else every

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if "optimizer" in checkpoint and self._to_store:  # training cannot resume from weights alone
            checkpoint[_KEY] = self._to_store

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        self._loaded = checkpoint.get(_KEY) or []

    def before_train(self, runner: Any) -> None:
        loaded, self._loaded = self._loaded, []
        if runner.iter == 0 or len(loaded) != get_dist_info()[1]:
            return  # another number of processes, which is said elsewhere, goes on with the merged ones
        own = loaded[get_rank()]
        if own.shape != _statistics(runner.model).shape:
            raise UserError(
                f"the checkpoint holds {len(own)} BatchNorm statistics for process {get_rank()}, and this "
                f"network has {len(_statistics(runner.model))}: use the config that it was trained with"
            )
        _set_statistics(runner.model, own)

    def after_train(self, runner: Any) -> None:
        average_batch_norm(runner.model)  # what is used from now on is what was saved


def _places(model: nn.Module) -> list[torch.Tensor]:
    """All running means of a network and, after them, all running variances."""
    norms = [one for one in model.modules() if isinstance(one, _BatchNorm)]
    means = [norm.running_mean for norm in norms]
    variances = [norm.running_var for norm in norms]
    return [one for one in (*means, *variances) if one is not None]


def _statistics(model: nn.Module) -> torch.Tensor:
    """A copy of these, as one vector."""
    places = _places(model)
    return torch.cat(places) if places else torch.empty(0)


def _set_statistics(model: nn.Module, statistics: torch.Tensor) -> None:
    places = _places(model)
    for place, values in zip(places, statistics.split([len(one) for one in places]), strict=True):
        place.copy_(values)


def average_batch_norm(model: nn.Module) -> None:
    """Merge the BatchNorm statistics of all processes, and give the result to each of them.

    Plain BatchNorm sees only the images of its own process, so the running statistics drift apart although
    the weights do not. The merged mean is the mean of the means. The merged variance is the mean of the
    variances plus the variance of the means, which is the variance over the images of all processes.
    Statistics that already agree (SyncBatchNorm, a second call) do not change, not even in the last bit. With
    one process this function does nothing.
    """
    _, world_size = get_dist_info()
    statistics = _statistics(model)
    if world_size == 1 or not len(statistics):
        return

    def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
        torch_dist.all_reduce(values)
        return values / world_size

    # float64, so that averaging equal float32 numbers gives back the same number
    means, variances = statistics.double().chunk(2)
    mean = mean_over_processes(means.clone())
    variance = mean_over_processes(variances + (means - mean) ** 2)
    _set_statistics(model, torch.cat([mean, variance]))
