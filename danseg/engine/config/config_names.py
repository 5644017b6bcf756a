"""The names at the top level of a config: those that a run reads, and those that look as if it did."""

import inspect
from collections.abc import Collection, Iterator
from typing import Any

from mmengine.runner import Runner

from danseg.io.words import did_you_mean

# Besides the arguments of mmengine's Runner.
_OTHERS = {
    "activation_checkpointing",
    "compile",
    "custom_imports",
    "efficient_conv_bn_eval",
    "find_unused_parameters",
    "model_wrapper_cfg",
    "prepare_command",
    "recompute",
    "sync_bn",
    "tta_model",
    "tta_pipeline",
}

READ = frozenset(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} | _OTHERS

# What configs of mmcv's runner, before mmengine, said with other names.
_BEFORE_MMENGINE = {
    "checkpoint_config": "default_hooks.checkpoint",
    "cudnn_benchmark": "env_cfg.cudnn_benchmark",
    "data": "train_dataloader, val_dataloader and test_dataloader",
    "dist_params": "env_cfg.dist_cfg",
    "evaluation": "val_evaluator, train_cfg.val_interval and default_hooks.checkpoint.save_best",
    "fp16": "the option --amp, or optim_wrapper.type",
    "log_config": "default_hooks.logger and visualizer",
    "lr_config": "param_scheduler",
    "max_epoch": "train_cfg.max_epochs",
    "max_epochs": "train_cfg.max_epochs",
    "max_iter": "train_cfg.max_iters",
    "momentum_config": "param_scheduler",
    "optimizer": "optim_wrapper.optimizer",
    "optimizer_config": "optim_wrapper",
    "resume_from": "the option --resume",
    "runner": "train_cfg",
    "seed": "randomness.seed",
    "total_epochs": "train_cfg.max_epochs",
    "total_iters": "train_cfg.max_iters",
    "workflow": "train_cfg",
}

_TOO_COMMON = {"name", "type"}  # keys that a variable may be called like


def is_read(name: str) -> bool:
    """Whether a run reads this name; any other serves to compute those."""
    return name in READ


def about_dead_name(name: str, inherited: Collection[str], values: Any) -> str | None:
    """What to say about a name that a file sets and that neither it nor a run reads.

    Args:
        name: the name.
        inherited: names that the file's bases set.
        values: the merged config.

    Returns:
        How to say it instead; None for a name that resembles nothing that a run reads.
    """
    if name in _BEFORE_MMENGINE:
        return f"; set {_BEFORE_MMENGINE[name]} instead"
    similar = did_you_mean(name, {*READ, *inherited} - {name}, cutoff=0.85)
    if similar:
        return similar
    if not inherited or name in _TOO_COMMON:
        return None
    places = [place for place in places_of(values) if place.endswith(f".{name}")]
    return f"; set {' or '.join(places[:3])} instead" if places else None


def places_of(node: Any, at: str = "") -> Iterator[str]:
    """Yield every dotted key of a config, but not those inside lists."""
    for name, child in node.items() if isinstance(node, dict) else ():
        yield f"{at}{name}"
        yield from places_of(child, f"{at}{name}.")
