"""How many images one step of the optimiser sees."""

from collections.abc import Mapping
from typing import Any


def total_batch(config: Mapping[str, Any], world_size: int) -> int | None:
    """Images that one step of the optimiser sees: processes x images a process x accumulated iterations.

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
