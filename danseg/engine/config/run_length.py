"""Let the rates, validations and checkpoints of a training follow its length.

A schedule is made for one length: its rates end with the last iteration, and it validates and saves a
number of times on the way. Were ``train_cfg.max_iters`` changed alone, to try something or to train longer,
the rate would be cut off high or stay at its end, and a short training would never be validated.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from danseg.engine.config.nested import sets, value_at
from danseg.errors import UserError

_STEPS = ("begin", "end", "T_max", "milestones", "periods", "step_size", "total_steps")


def follow_length(
    before: dict, after: dict, where: str | Path, own: dict, named: Collection[str] = ()
) -> None:
    """Bring what counts iterations or epochs into the proportion that it had before the length was changed.

    Args:
        before: values of a config.
        after: the same with changes; changed in place.
        where: what made the changes, for messages.
        own: the changes as a nest of dicts. What they set themselves, if only to the same value, stays.
        named: names with which a config computes that have been given a value.

    Raises:
        UserError: ``max_iters`` and ``train_cfg.max_iters`` are both set, and differ.
    """
    for unit in ("max_iters", "max_epochs"):
        old: Any = value_at(before, f"train_cfg.{unit}")
        new: Any = value_at(after, f"train_cfg.{unit}")
        if not (_is_length(old) and _is_length(new)) or old == new:
            continue
        if before.get(unit) == old:  # the name that train_cfg takes it from
            if unit in named:
                raise UserError(
                    f"{where}: {unit}={after[unit]} and train_cfg.{unit}={new} contradict each other; "
                    f"set {unit} alone, which train_cfg follows"
                )
            after[unit] = new
        for place, node, key in _places(after, by_epoch=unit == "max_epochs"):
            value = node[key]
            if not sets(own, place) and value == value_at(before, place):
                node[key] = _scaled(key, value, old, new)


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _places(config: dict, *, by_epoch: bool) -> Iterator[tuple[str, dict, str]]:
    """Yield each place that counts iterations, or epochs: its dotted name, the dict and the key."""
    loop = config["train_cfg"]
    yield from (("train_cfg." + key, loop, key) for key in ("val_interval", "val_begin") if key in loop)
    hooks = config.get("default_hooks") or {}
    checkpoint = hooks.get("checkpoint") or {}
    if checkpoint.get("by_epoch", True) == by_epoch:
        keys = [key for key in ("interval", "save_begin") if key in checkpoint]
        yield from ((f"default_hooks.checkpoint.{key}", checkpoint, key) for key in keys)
    for place, rate in _rates(config.get("param_scheduler"), "param_scheduler"):
        if rate.get("by_epoch", True) == by_epoch:
            yield from ((f"{place}.{key}", rate, key) for key in _STEPS if key in rate)


def _rates(node: Any, place: str) -> Iterator[tuple[str, dict]]:
    """Yield the schedules of a rate: one, a list of them, or those of several optimisers by name."""
    if isinstance(node, dict) and "type" in node:
        yield place, node
    elif isinstance(node, (dict, list, tuple)):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _rates(child, f"{place}.{key}")


def _scaled(key: str, value: Any, old: int, new: int) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_scaled(key, one, old, new) for one in value)
    if not _is_length(value):  # 0, -1, infinity
        return value
    if value == old:
        return new
    # A warm-up of a single step would leave the rate where it begins; what follows begins at its end.
    scaled = max(2 if key in ("begin", "end") else 1, value * new // old)
    return min(scaled, new - 1) if key == "begin" else scaled
