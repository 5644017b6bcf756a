"""Check the form of what a training continues from: averaged weights, the optimiser's and random states.

What is checked here, when a file is read, needs nothing but the file. Whether a state fits the optimiser of a
run shows when it is loaded.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from danseg.engine.numbers import is_number

_MT19937 = 624  # words of the generator that both NumPy and Python use


def training_state_problem(checkpoint: Mapping[str, Any]) -> str:
    """What is wrong with the entries that only a resumed training reads, and where; '' if nothing is."""
    for place, find in _FINDERS.items():
        entry = checkpoint.get(place)
        problem = find(entry) if entry is not None else ""
        if problem:
            return f"{place} {problem}"
    return ""


def _averaged(weights: Mapping[str, Any]) -> str:
    return next((f"holds {problem} for {name[:50]!r}" for name, problem in _unusable(weights)), "")


def _unusable(weights: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in weights.items():
        problem = _tensor_problem(value) if torch.is_tensor(value) else f"a {type(value).__name__}"
        if problem:
            yield name, problem


def _optimizer(state: Mapping[str, Any]) -> str:
    if not {"state", "param_groups"} & set(state):  # of several optimisers, by name
        for name, one in state.items():
            problem = (
                _optimizer(one) if isinstance(one, Mapping) else f"is a {type(one).__name__}, not a dict"
            )
            if problem:
                return f"{problem}, in that of {name[:50]!r}"
        return ""
    groups, values = state.get("param_groups"), state.get("state")
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups) or not groups:
        return "has no list of param_groups"
    if not isinstance(values, Mapping) or not all(isinstance(value, Mapping) for value in values.values()):
        return "has no dict of a state for each parameter"
    numbers: list[Any] = []
    for group in groups:
        members = group.get("params")
        if not isinstance(members, list) or not all(_is_whole(one) for one in members):
            return "has param_groups without the numbers of their parameters"
        numbers += members
        if not (is_number(group.get("lr")) or torch.is_tensor(group.get("lr"))):
            return "has param_groups without a number as their rate (lr)"
    if len(set(numbers)) < len(numbers) or not set(values) <= set(numbers):
        return "counts its parameters otherwise than its param_groups do"
    return _value_problem(state)


def _random(states: list) -> str:
    for rank, state in enumerate(states):
        if not isinstance(state, Mapping):
            return f"holds a {type(state).__name__} for process {rank}, not a dict"
        for name, sets in _GENERATORS.items():
            try:
                if not isinstance(state[name], torch.Tensor if name == "torch" else Mapping):
                    raise TypeError(f"it is a {type(state[name]).__name__}")
                sets(state[name])
            except Exception as error:  # the generators say in many ways that a state is none
                reason = str(error).splitlines() or [type(error).__name__]
                return f"holds no usable state of {name}'s generator for process {rank} ({reason[0][:100]})"
        if "cuda" in state and getattr(state["cuda"], "dtype", None) is not torch.uint8:
            return f"holds no usable state of the GPU's generator for process {rank}"
    return ""


def _set_torch(state: Any) -> None:
    torch.Generator().set_state(state.cpu())


def _set_numpy(state: Any) -> None:
    keys, position = state["keys"], state["position"]
    if keys.shape != (_MT19937,) or keys.dtype != torch.int64 or not 0 <= position <= _MT19937:
        raise ValueError(f"{_MT19937} words and a place among them are needed")
    _require_words(keys)
    words = keys.cpu().numpy().astype(np.uint32)
    np.random.RandomState().set_state(("MT19937", words, position, state["has_gauss"], state["gauss"]))


def _set_python(state: Any) -> None:
    _require_words(state["words"])
    if not (state["gauss"] is None or is_number(state["gauss"])):
        raise ValueError("its second number of a pair is none")
    random.Random().setstate((state["version"], tuple(state["words"].tolist()), state["gauss"]))


def _require_words(words: torch.Tensor) -> None:
    if words.dtype != torch.int64 or ((words < 0) | (words >= 2**32)).any():
        raise ValueError("its words are no numbers of 32 bits")


_GENERATORS: dict[str, Callable[[Any], None]] = {
    "torch": _set_torch,
    "numpy": _set_numpy,
    "python": _set_python,
}


def _batch_norms(states: list) -> str:
    for rank, own in enumerate(states):
        problem = _tensor_problem(own) if torch.is_tensor(own) else f"a {type(own).__name__}"
        if problem or own.dim() != 1:
            return f"holds {problem or 'no vector'} for process {rank}"
    return ""


_FINDERS: dict[str, Callable[[Any], str]] = {
    "batch_norms": _batch_norms,
    "ema_state_dict": _averaged,
    "optimizer": _optimizer,
    "random_states": _random,
}


def _value_problem(value: Any, place: str = "") -> str:
    """The first tensor or number in nested dicts and lists that no optimiser can go on with, and where."""
    if isinstance(value, (Mapping, list, tuple)):
        inner = value.items() if isinstance(value, Mapping) else enumerate(value)
        found = (
            _value_problem(one, f"{place}.{str(key)[:30]}" if place else str(key)[:30]) for key, one in inner
        )
        return next(filter(None, found), "")
    problem = _tensor_problem(value) if torch.is_tensor(value) else ""
    # Some optimisers mean "without limit" by an infinite number, but none by NaN.
    if isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and place.endswith(".lr"))):
        problem = f"the number {value}"
    return f"holds {problem} at {place}" if problem else ""


def _tensor_problem(value: torch.Tensor) -> str:
    if value.layout != torch.strided or value.is_meta or value.is_complex() or value.is_quantized:
        return "no plain tensor of real numbers"
    if value.is_floating_point() and value.element_size() > 1 and not torch.isfinite(value).all():
        return "NaN or infinity"
    return ""


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
