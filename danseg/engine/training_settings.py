"""What a training was made with, stored in its checkpoints, and what another config would change in it.

A resumed training goes on as it began only with the same network, losses, optimiser, schedules, data, batches
and processes. How long it is, how often it validates, saves and logs, its hooks, its folders and where the
same files lie may change.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop

from danseg.datasets.own_dataset import OwnDataset
from danseg.datasets.wrappers import infos, inner_datasets
from danseg.errors import UserError

KEY = "trained_with"  # of a checkpoint

_HOW_IT_STEPS = ("foreach", "fused", "capturable", "differentiable")  # the same numbers, faster or slower
# Entries that change no result of a training, by the part of the config that holds them at any depth.
_FREE = {
    # where the first weights came from, how memory is saved
    "model": ("pretrained", "init_cfg", "with_cp"),
    # how fast data are read, and from where: what is there is compared file by file
    "train_dataloader": (
        *(
            "num_workers",
            "persistent_workers",
            "prefetch_factor",
            "pin_memory",
            "pin_memory_device",
            "timeout",
        ),
        *("multiprocessing_context", "worker_init_fn", "data_root", "cache", "backend_args"),
    ),
    "optim_wrapper": _HOW_IT_STEPS,
    "param_scheduler": (),
}
_LENGTH = "train_cfg.length"
_STEPS = ("begin", "end", "T_max")  # of a schedule, which follow the length of the training
_SHOWN = 80  # characters of a value in a message


class Change(NamedTuple):
    """An entry of the config that is not what a checkpoint was trained with."""

    place: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.place}: {_shown(self.before)} in the checkpoint, {_shown(self.now)} in this run"


def settings_text(runner: Any) -> str:
    """What the training of ``runner`` is made with, as JSON: it is read back without running code."""
    return json.dumps(_settings(runner))


def changes_since(runner: Any, checkpoint: Mapping[str, Any], path: str) -> list[Change]:
    """What ``runner``, built and not yet resumed, would change in the training that wrote ``checkpoint``.

    A checkpoint that does not say what it was trained with, as those of mmseg, is compared by its seed, its
    place in the training and the settings that its optimiser's state holds.

    Raises:
        UserError: what the checkpoint was trained with is stored in another form than it has to be.
    """
    found: list[Change] = []
    if checkpoint.get(KEY) is not None:
        before, now = _stored(checkpoint[KEY], path), _settings(runner)
        for place in sorted(before.keys() | now.keys()):
            found += _differences(before.get(place), now.get(place), place)
        if any(one.place == _LENGTH for one in found):
            found = [one for one in found if not _follows_length(one.place)]
    else:
        found += _change_of_loop(runner.train_loop, checkpoint["meta"])
    if not any(one.place.startswith(("optim_wrapper", "auto_scale_lr", "processes")) for one in found):
        found += _changes_of_optimizers(runner.optim_wrapper, checkpoint.get("optimizer") or {})
    seed = (checkpoint.get("meta") or {}).get("seed")
    if seed is not None and runner.seed != seed:
        found.append(Change("randomness.seed", seed, runner.seed))
    return found


def trained_images(checkpoint: Mapping[str, Any]) -> tuple[int, str | None] | None:
    """How many images a checkpoint was trained with, and a digest of their names; None if it does not say."""
    try:
        told = re.fullmatch(
            r"(\d+)(?:, whose names give ([0-9a-f]+))?", json.loads(checkpoint[KEY])["images"]
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return (int(told[1]), told[2]) if told else None


def refusal(changes: Iterable[Change], path: str) -> str:
    """The message that a training with ``changes`` does not go on from the checkpoint at ``path``."""
    changes = list(changes)
    options = [f"{one.place}={one.before}" for one in changes if _is_option(one)]
    back = f" (--cfg-options {' '.join(options)})" if options else ""
    lines = "\n".join(f"  {one}" for one in changes)
    return (
        f"{path} was trained with other settings, so that training would not go on as it began:\n{lines}\n"
        f"Either set what the checkpoint has{back}, or go on with what this run has: --apply-changes. "
        f"To begin a new training with its weights: --cfg-options load_from={path}"
    )


def _settings(runner: Any) -> dict[str, Any]:
    config = runner.cfg
    parts = {place: _plain(config.get(place), free) for place, free in _FREE.items()}
    if isinstance(parts["model"], dict):
        parts["model"].pop("test_cfg", None)
        parts["model"].setdefault("data_preprocessor", _plain(config.get("data_preprocessor")))
    loader = parts["train_dataloader"]
    if isinstance(loader, dict):
        _drop_absolute(loader.get("dataset"))
    loop, scaling = runner.train_loop, config.get("auto_scale_lr") or {}
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    return {
        **parts,
        "train_cfg": {"by_epoch": by_epoch, "length": loop.max_epochs if by_epoch else loop.max_iters},
        "auto_scale_lr": _plain(scaling) if scaling.get("enable") else None,
        "processes": runner.world_size,
        "images": _images(loop.dataloader.dataset),
        "own_data": _own_data(loop.dataloader.dataset),
    }


def _change_of_loop(loop: Any, meta: Mapping[str, Any]) -> list[Change]:
    """What a checkpoint's place in its training tells of its loop: one over iterations stays in epoch 0."""
    now = isinstance(loop, EpochBasedTrainLoop)
    before = meta["epoch"] > 0 or (now and meta["iter"] < len(loop.dataloader))
    return [Change("train_cfg.by_epoch", before, now)] if before != now else []


def _images(dataset: Any) -> str:
    """How many images a data set has, and a digest of their names and their labels', in its order.

    Folders that all images, or all labels, share do not count: they may have been moved.
    """
    try:
        found = [info for part in inner_datasets(dataset) for info in infos(part)]
        digest = hashlib.blake2b(digest_size=8)
        for key in ("img_path", "seg_map_path"):
            paths = [str(info.get(key) or "") for info in found]
            shared = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
            names = [os.path.relpath(path, shared) if path else "" for path in paths]
            digest.update("\n".join(names).encode("utf-8", "surrogateescape"))
        return f"{len(dataset)}, whose names give {digest.hexdigest()}"
    except (ValueError, TypeError, AttributeError):  # a data set of another kind
        return f"{len(dataset)}"


def _own_data(dataset: Any) -> list[dict[str, Any]] | None:
    """What a ``dataset.yaml`` says that the config does not: names of the classes, and ids in the masks."""
    found = [part for part in inner_datasets(dataset) if isinstance(part, OwnDataset)]
    told = [
        {
            "names": list(one.file.names),
            "ids": {str(id_): number for id_, number in one.file.label_ids.items()},
        }
        for one in found
    ]
    return told or None


def _plain(value: Any, free: Iterable[str] = ()) -> Any:
    """``value`` in types that JSON has, without the ``free`` entries; a class or a function by its name."""
    if isinstance(value, Mapping):
        return {
            str(key): _short(_plain(one, free)) if key == "type" else _plain(one, free)
            for key, one in value.items()
            if key not in free
        }
    if isinstance(value, (list, tuple)):
        return [_plain(one, free) for one in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__name__", None) or f"a {type(value).__name__}"


def _short(name: Any) -> Any:
    """A type's name without the registry or the module that it was named with."""
    return name.rpartition(".")[2] if isinstance(name, str) else name


def _drop_absolute(dataset: Any) -> None:
    """Leave out where data lie: a place that does not depend on ``data_root``."""
    if isinstance(dataset, list):
        for one in dataset:
            _drop_absolute(one)
    if isinstance(dataset, dict):
        for key, value in list(dataset.items()):
            if (
                key in ("ann_file", "img_path", "seg_map_path")
                and isinstance(value, str)
                and Path(value).is_absolute()
            ):
                del dataset[key]
            elif key in ("dataset", "datasets", "data_prefix"):
                _drop_absolute(value)


def _stored(text: Any, path: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise UserError(
            f"checkpoint {path} is malformed: its {KEY} is not what training writes; use another file"
        )
    return settings


def _differences(before: Any, now: Any, place: str) -> Iterator[Change]:
    """Every entry that differs; an entry that is missing is the same as None."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in (*before, *(key for key in now if key not in before)):
            yield from _differences(before.get(key), now.get(key), f"{place}.{key}")
    elif _is_list_of_dicts(before) and _is_list_of_dicts(now) and _types(before) == _types(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from _differences(*pair, f"{place}.{index}")
    elif before != now:
        yield Change(place, before, now)


def _is_list_of_dicts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _types(value: list[dict]) -> list[Any]:
    return [one.get("type") for one in value]


def _follows_length(place: str) -> bool:
    return place == _LENGTH or place.startswith("param_scheduler.") and place.rpartition(".")[2] in _STEPS


def _changes_of_optimizers(
    wrapper: OptimWrapper | OptimWrapperDict, state: Mapping[str, Any]
) -> list[Change]:
    """What an optimiser's own state tells of its settings."""
    if not isinstance(wrapper, OptimWrapperDict):
        return _changes_of_groups(wrapper.optimizer, state.get("param_groups"), "optim_wrapper.optimizer")
    return [
        change
        for name, one in wrapper.items()
        if isinstance(of_one := state.get(name), Mapping)
        for change in _changes_of_groups(
            one.optimizer, of_one.get("param_groups"), f"optim_wrapper.{name}.optimizer"
        )
    ]


def _changes_of_groups(optimizer: Any, before: Any, place: str) -> list[Change]:
    if not isinstance(before, (list, tuple)) or not all(isinstance(one, Mapping) for one in before):
        return []  # no optimiser can continue from it, which is said where it is loaded
    groups = optimizer.param_groups
    foreign = sorted(
        {str(key) for group in before for key in group} - {key for group in groups for key in group}
    )
    foreign = [key for key in foreign if not key.startswith("initial_")]
    if foreign:
        return [Change(place, f"an optimiser with {', '.join(foreign)}", type(optimizer).__name__)]
    if len(before) != len(groups):
        return [Change(f"{place}'s groups of parameters", len(before), len(groups))]
    found: dict[str, Change] = {}
    for was, group in zip(before, groups, strict=True):
        for key in group:
            # What a schedule changes is compared as it was before the first iteration.
            then, now = (_plain(one.get(f"initial_{key}", one.get(key))) for one in (was, group))
            compared = key in was and key not in ("params", *_HOW_IT_STEPS) and not key.startswith("initial_")
            if compared and then != now and f"{place}.{key}" not in found:
                found[f"{place}.{key}"] = Change(f"{place}.{key}", then, now)
    return list(found.values())


def _is_option(change: Change) -> bool:
    """Whether ``--cfg-options`` can set the entry back."""
    plain = change.before is None or isinstance(change.before, (bool, int, float, str))
    ours = ("processes", "images", "own_data", "train_cfg.by_epoch")
    return plain and not change.place.startswith(ours) and " " not in change.place + str(change.before)


def _shown(value: Any) -> str:
    if _is_list_of_dicts(value) and all(_types(value)):
        return _cut(f"[{', '.join(map(str, _types(value)))}]")
    return _cut(value if isinstance(value, str) else repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
