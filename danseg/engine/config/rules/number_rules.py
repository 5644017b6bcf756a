"""Numbers of a run that are counted from 1, or may be 0, or have an end."""

import math
from collections.abc import Iterator
from typing import Any

from mmengine.runner import Priority, get_priority

from danseg.engine.config.config_parts import as_dict
from danseg.engine.config.rules.run import Run
from danseg.engine.numbers import is_number


def positive_numbers(run: Run) -> Iterator[str]:
    """Sizes of batches, and lengths of the training, which are counted from 1."""
    places = [f"{split}_dataloader.batch_size" for split in run.splits]
    if run.task == "train":
        places += [f"train_cfg.{key}" for key in ("max_iters", "max_epochs", "val_interval")]
        places += ["optim_wrapper.accumulative_counts", "auto_scale_lr.base_batch_size"]
    for place in places:
        key, _, name = place.partition(".")
        value = as_dict(run.config.get(key)).get(name)
        if place.endswith(".batch_size") and value is None and not run.config[key].get("batch_sampler"):
            value = "None" if name in run.config[key] else None  # DataLoader would give single samples
        number = value is None or is_number(value)
        if not number or (value is not None and (value < 1 or value != int(value))):
            yield f"{place}={value!r}: give a whole number, 1 or more"


def sound_numbers(run: Run) -> Iterator[str]:
    """Numbers that may be 0: a seed, workers, and those of an optimiser, which would refuse others."""
    seed = as_dict(run.config.get("randomness")).get("seed")
    if seed is not None and not (type(seed) is int and 0 <= seed < 2**32):
        yield f"randomness.seed={seed!r}: give a whole number from 0 to {2**32 - 1}"
    for split in run.splits:
        workers: Any = run.config[f"{split}_dataloader"].get("num_workers")
        if isinstance(workers, (int, float)) and (workers < 0 or workers != int(workers)):
            yield f"{split}_dataloader.num_workers={workers}: give a whole number, 0 or more"
    for part in run.at("optim_wrapper.optimizer"):
        for name in ("lr", "weight_decay", "momentum"):
            value = part.config.get(name)
            below = 1 if name == "momentum" else math.inf
            if value is not None and not (is_number(value) and 0 <= value < below):
                limit = " and below 1" if name == "momentum" else ""
                yield f"{part.place}.{name}={value!r}: give a number, 0 or more{limit}"


def priorities(run: Run) -> Iterator[str]:
    """Where a hook stands among the others."""
    for hook in run.hooks():
        value = hook.config.get("priority")
        try:
            get_priority("NORMAL" if value is None else value)
        except (KeyError, ValueError, TypeError):
            names = ", ".join(one.name for one in Priority)
            yield f"{hook.place}.priority={value!r}: give a number from 0 to 100, or one of {names}"


DISAGREEMENTS = (positive_numbers, sound_numbers, priorities)
