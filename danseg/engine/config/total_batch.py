"""How many images one step of an optimiser sees, and for how many its learning rate was chosen."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmengine.optim import OptimWrapper
from torch.utils.data import DataLoader

from danseg.errors import UserError

if TYPE_CHECKING:
    from danseg.engine.runner import DansegRunner


def total_batch(config: Mapping[str, Any], world_size: int) -> int | None:
    """Images that one step of the optimiser will see: processes x images a process x accumulated iterations.

    Args:
        config: the whole config. ``train_dataloader.batch_size`` (or its batch sampler's) and
            ``optim_wrapper.accumulative_counts`` count.
        world_size: number of processes.

    Returns:
        The total batch; None if the config trains nothing or does not say how many images a process takes.
    """
    loader = config.get("train_dataloader") or {}
    images = loader.get("batch_size") or (loader.get("batch_sampler") or {}).get("batch_size")
    if not images:
        return None
    return world_size * images * ((config.get("optim_wrapper") or {}).get("accumulative_counts") or 1)


def images_an_iteration(runner: "DansegRunner") -> int:
    """Images that all processes together read for one iteration of a training."""
    loader: DataLoader = runner.train_dataloader
    batch = loader.batch_size or getattr(loader.batch_sampler, "batch_size", 1)
    return batch * runner.world_size


def images_a_step(runner: "DansegRunner", wrapper: OptimWrapper) -> int:
    """Images that one step of an optimiser sees: of all processes, and all iterations gathered for a step."""
    return images_an_iteration(runner) * iterations_a_step(wrapper)


def iterations_a_step(wrapper: OptimWrapper) -> int:
    """Iterations whose gradients an optimiser gathers for one step, ``accumulative_counts``."""
    return getattr(wrapper, "_accumulative_counts", 1)


def base_batch_size(auto_scale_lr: Mapping[str, Any] | None, *, needed: bool = False) -> int | None:
    """The total batch for which a config's learning rate is chosen; None if the config does not say.

    Args:
        auto_scale_lr: the config's ``auto_scale_lr``.
        needed: the rate is to be scaled, even if ``enable`` is not set.

    Raises:
        UserError: it is not a whole number above 0, or is missing where the rate is to be scaled.
    """
    settings = auto_scale_lr or {}
    base = settings.get("base_batch_size")
    if base is None and not (needed or settings.get("enable")):
        return None
    if type(base) is not int or base < 1:
        raise UserError(
            f"auto_scale_lr.base_batch_size is {base!r}, so it is not known for which total batch the "
            "learning rate is; set --cfg-options auto_scale_lr.base_batch_size=N"
        )
    return base
