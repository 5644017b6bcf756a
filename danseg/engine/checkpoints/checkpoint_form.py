"""Check the form of a checkpoint's content: what has to be a dict, a list or a number is one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

from danseg.engine.checkpoints.training_state_form import training_state_problem
from danseg.errors import UserError

# The entries that danseg and mmengine read, with what they may be besides None. The keys of dicts are names.
_FORM: dict[str, tuple[type, ...]] = {
    "state_dict": (Mapping,),
    "ema_state_dict": (Mapping,),
    "optimizer": (Mapping,),
    "param_schedulers": (list, Mapping),
    "random_states": (list,),
    "batch_norms": (list,),
    "sample_order": (Mapping,),
    "trained_with": (str,),
    "meta": (Mapping,),
    "meta.epoch": (int,),
    "meta.iter": (int,),
    "meta.seed": (int,),
    "meta.CLASSES": (list, tuple, str),
    "meta.PALETTE": (list, tuple),
    "meta.cfg": (str,),
    "meta.dataset_meta": (Mapping,),
    "meta.dataset_meta.classes": (list, tuple, str),
    "meta.dataset_meta.palette": (list, tuple),
    "message_hub": (Mapping,),
    "message_hub.log_scalars": (Mapping,),
    "message_hub.runtime_info": (Mapping,),
    "message_hub.resumed_keys": (Mapping,),
}
_CALLED = {Mapping: "a dict", int: "a whole number", str: "a text", list: "a list", tuple: "a tuple"}


def check_form(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Check the content of ``checkpoint``, read from ``path``, before anything relies on it.

    Raises:
        UserError: an entry is of another type than it has to be, or a training cannot go on from it.
    """
    for place, types in _FORM.items():
        entry = _entry(checkpoint, place)
        if entry is None and place != "state_dict":
            continue
        problem = _problem(entry, types, place)
        if problem:
            raise _malformed(path, f"{place} {problem}")
    problem = training_state_problem(checkpoint)
    if problem:
        raise _malformed(path, problem)


def _malformed(path: str | Path, problem: str) -> UserError:
    return UserError(
        f"checkpoint {path} is malformed: its {problem}; use a file that training wrote, or torch.save() a "
        "dict of the network's tensors"
    )


def _entry(checkpoint: Mapping[str, Any], place: str) -> Any:
    entry: Any = checkpoint
    for key in place.split("."):
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    return entry


def _problem(entry: Any, types: tuple[type, ...], place: str) -> str:
    """What is wrong with an entry; '' if nothing is."""
    if not isinstance(entry, types):
        return f"is a {type(entry).__name__}, not {' or '.join(_CALLED[one] for one in types)}"
    if isinstance(entry, Mapping):
        for key, value in entry.items():
            if not isinstance(key, str):
                return f"has a key of type {type(key).__name__}, but its keys are names"
            if place == "message_hub.resumed_keys" and not isinstance(value, bool):
                return f"holds a {type(value).__name__} for {key[:50]!r}, not true or false"
            if isinstance(value, HistoryBuffer) and not _is_history(value):
                return f"holds a history {key[:50]!r} that is not two rows of numbers"
    if isinstance(entry, (list, tuple)):
        if place.lower().endswith(".classes") and not all(isinstance(name, str) for name in entry):
            return "holds something else than names"
        if place.lower().endswith(".palette") and not all(_is_colour(colour) for colour in entry):
            return "holds something else than colours of three numbers"
    return ""


def _is_history(history: HistoryBuffer) -> bool:
    values, counts = (getattr(history, name, None) for name in ("_log_history", "_count_history"))
    if not (isinstance(values, np.ndarray) and isinstance(counts, np.ndarray)):
        return False
    return values.ndim == 1 and values.shape == counts.shape


def _is_colour(colour: Any) -> bool:
    return (
        isinstance(colour, (list, tuple))
        and len(colour) == 3
        and all(isinstance(part, (int, float)) for part in colour)
    )
