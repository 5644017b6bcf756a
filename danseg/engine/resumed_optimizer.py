"""Let optimisers and the schedules of their rates go on from a checkpoint, as they were or with changes."""

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict, _ParamScheduler
from mmengine.runner import EpochBasedTrainLoop
from torch.optim import Optimizer

from danseg.engine.numbers import is_number
from danseg.errors import UserError
from danseg.io.words import listed

_SPAN = ("begin", "end", "total_iters", "T_max")  # what a schedule knows about its length


def check_states(runner: Any, checkpoint: Mapping[str, Any], path: str) -> None:
    """Check that the states of optimisers and schedules in ``checkpoint`` are such as ``runner``'s write.

    Raises:
        UserError: one of them does not fit; the message names it.
    """
    state = checkpoint["optimizer"]
    problems = [
        f"the optimiser{name} {problem}"
        for name, wrapper, of_one in _pairs(runner.optim_wrapper, state)
        if (problem := _problem(wrapper, of_one))
    ]
    if checkpoint.get("param_schedulers") is not None and runner.param_schedulers is not None:
        problems += _problems_of_rates(runner.param_schedulers, checkpoint["param_schedulers"])
    if problems:
        raise UserError(
            f"{path} cannot be resumed from, its states do not fit: {'; '.join(problems)}. Use an earlier "
            f"checkpoint, or begin a new training with its weights: --cfg-options load_from={path}"
        )


def _pairs(wrapper: OptimWrapper | OptimWrapperDict, state: Any) -> Iterator[tuple[str, OptimWrapper, Any]]:
    """Each optimiser's wrapper with its name in messages and its part of the state, None if there is none."""
    if not isinstance(wrapper, OptimWrapperDict):
        yield "", wrapper, state
        return
    for name, one in wrapper.items():
        yield f" {name}", one, state.get(name) if isinstance(state, Mapping) else None


def _problem(wrapper: OptimWrapper, state: Any) -> str:
    """Why ``wrapper`` cannot go on from ``state``; '' if it can."""
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= state.keys():
        return "has no state there"
    problem = _problem_of_groups(wrapper.optimizer, state["param_groups"])
    problem = problem or _problem_of_moments(wrapper.optimizer, state)
    if not problem and isinstance(wrapper, AmpOptimWrapper) and "loss_scaler" in state:
        form = wrapper.loss_scaler.state_dict()
        problem = (
            "" if not form or _fits(form, state["loss_scaler"]) else "has another kind of loss scale there"
        )
    base = getattr(wrapper, "base_param_settings", None)
    if not problem and not _fits(base, state.get("base_param_settings", base)):
        problem = "has other base settings there"
    return problem


def _problem_of_groups(optimizer: Optimizer, groups: Any) -> str:
    own = optimizer.param_groups
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, Mapping) for group in groups):
        return "has groups there that are no dicts"
    sizes = [len(group["params"]) for group in own]
    members = [group.get("params") for group in groups]
    if not all(isinstance(one, (list, tuple)) and all(type(n) is int for n in one) for one in members):
        return "has groups there without the numbers of their parameters"
    found = [len(one) for one in members]
    if found != sizes:
        there, here = ("+".join(map(str, some[:5])) + ("+..." if some[5:] else "") for some in (found, sizes))
        return f"has groups of {there} parameters there, and of {here} here"
    if len({number for one in members for number in one}) != sum(sizes):
        return "has a parameter in two groups there"
    filled = _with_groups(optimizer, [dict(group) for group in groups])
    for was, group in zip(filled.param_groups, own, strict=True):
        lacking = [key for key in group if key not in was and not key.startswith("initial_")]
        if lacking:
            return f"has no {listed(lacking)} there"
        wrong = [key for key in group if key in was and key != "params" and not _fits(group[key], was[key])]
        if wrong:
            return f"has settings there that are none: {listed(wrong)}"
    return ""


def _problem_of_moments(optimizer: Optimizer, state: Mapping[str, Any]) -> str:
    """Compare the tensors of a state to those that one step of ``optimizer`` makes."""
    moments = state["state"]
    if not isinstance(moments, Mapping) or not all(isinstance(one, Mapping) for one in moments.values()):
        return "has a state there that is no dict of dicts"
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    strangers = moments.keys() - set(numbers)
    if strangers:
        return f"has a state there for parameters that are in no group: {listed(strangers)}"
    made = _made_by_a_step(optimizer)
    for index, number in enumerate(numbers):
        of_one = moments.get(number) or {}
        form = made[index] if made is not None else None
        kept = [key for key, value in of_one.items() if value is not None]
        if of_one and form is not None and set(kept) != form.keys():
            there, here = (listed(keys) or "nothing" for keys in (kept, form))
            return f"has {there} there for a parameter, and keeps {here}"
        for key in kept:
            value = of_one[key]
            if not _fits(form[key] if form is not None else value, value):
                return f"has a {key} there for parameter {number} that is not finite numbers of its shape"
    return ""


def _made_by_a_step(optimizer: Optimizer) -> list[dict[str, Any]] | None:
    """What one step keeps for each parameter, in tensors without memory; None if that is unknown."""
    groups = []
    for group in optimizer.param_groups:
        copies = []
        for parameter in group["params"]:
            copies.append(torch.nn.Parameter(torch.empty_like(parameter, device="meta")))
            copies[-1].grad = torch.empty_like(copies[-1])
        groups.append({**group, "params": copies, "foreach": False, "fused": False})
    try:
        probe = _with_groups(optimizer, groups)
        type(optimizer).step(probe)
    except Exception:  # an optimiser that computes with the values of its parameters
        return None
    return [dict(probe.state.get(one) or {}) for group in groups for one in group["params"]]


def _with_groups(optimizer: Optimizer, groups: list[dict[str, Any]]) -> Optimizer:
    """An optimiser of the same kind with other groups, to which it adds what they lack, and without state."""
    other = copy.copy(optimizer)
    other.__setstate__({"state": defaultdict(dict), "param_groups": groups})
    return other


def without_moments(runner: Any, checkpoint: Mapping[str, Any]) -> list[str]:
    """Say of how many parameters a checkpoint has no moments, though their optimiser keeps some.

    It may be of a time before their first step: of few iterations with gradients that were gathered, or left
    out in float16.
    """
    notes = []
    for name, wrapper, state in _pairs(runner.optim_wrapper, checkpoint["optimizer"]):
        groups, stored = wrapper.optimizer.param_groups, state["param_groups"]
        parameters = [one for group in groups for one in group["params"]]
        numbers = [number for group in stored for number in group["params"]]
        made = _made_by_a_step(wrapper.optimizer) or [{} for _ in numbers]
        lacking = sum(
            bool(form) and parameter.requires_grad and not state["state"].get(number)
            for parameter, number, form in zip(parameters, numbers, made, strict=True)
        )
        if lacking:
            notes.append(
                f"the optimiser{name} has no moments of {lacking} of {len(numbers)} parameters there: they "
                "start with fresh ones"
            )
    return notes


def _fits(own: Any, stored: Any) -> bool:
    """Whether ``stored`` is finite and of the kind and shape of ``own``."""
    if torch.is_tensor(stored):
        if not torch.is_tensor(own):
            return False
        if stored.layout != torch.strided or stored.is_meta or stored.shape != own.shape:
            return False
        same_kind = stored.is_floating_point() == own.is_floating_point() and not stored.is_complex()
        return same_kind and bool(torch.isfinite(stored).all())
    if own is None or isinstance(own, bool):  # a switch, or one that PyTorch decides on
        return stored is None or isinstance(stored, bool)
    if torch.is_tensor(own):  # older PyTorch kept the number of steps as an int
        return own.dim() == 0 and is_number(stored)
    if isinstance(own, str):
        return isinstance(stored, str)
    if isinstance(own, (int, float)):
        return is_number(stored) and (math.isfinite(stored) or not math.isfinite(own))
    if isinstance(own, Mapping):
        return isinstance(stored, Mapping) and all(
            _fits(own[key], stored[key]) for key in own if key in stored
        )
    if isinstance(own, (list, tuple)):
        same_length = isinstance(stored, (list, tuple)) and len(stored) == len(own)
        return same_length and all(map(_fits, own, stored))
    return True


def _problems_of_rates(rates: Any, states: Any) -> list[str]:
    if isinstance(rates, dict):
        if not isinstance(states, Mapping) or states.keys() != rates.keys():
            return [f"there are schedules for {listed(states)}, and here for {listed(rates)}"]
        return [problem for name in rates for problem in _problems_of_rates(rates[name], states[name])]
    if not isinstance(states, (list, tuple)) or not all(isinstance(one, Mapping) for one in states):
        return ["the schedules there are no list of dicts"]
    if len(states) != len(rates):
        return [f"there are {len(states)} schedules, and here {len(rates)}"]
    problems = []
    for rate, state in zip(rates, states, strict=True):
        own = {key: value for key, value in rate.state_dict().items() if not callable(value)}
        wrong = [key for key in own if key not in state or not _fits(own[key], state[key])]
        if wrong:
            problems.append(f"{type(rate).__name__} has no or another kind of {listed(wrong)} there")
    return problems


def all_rates(runner: Any) -> list[_ParamScheduler]:
    """The schedules of all optimisers, once they are built."""
    schedulers = runner.param_schedulers or []
    several = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
    return [rate for some in several for rate in some if isinstance(rate, _ParamScheduler)]


def span(rate: _ParamScheduler) -> dict[str, Any]:
    """What a schedule knows about its length."""
    return {key: getattr(rate, key) for key in _SPAN if hasattr(rate, key)}


def follow_length(runner: Any, spans: list[dict[str, int]], path: str) -> None:
    """Let the schedules that end with the training end with it when it is continued for longer.

    mmengine takes begin and end from the checkpoint. A warm-up keeps them: it is over, or has begun.

    Args:
        runner: resumed from ``path``.
        spans: what this config gives each of :func:`all_rates`.
        path: checkpoint file.
    """
    loop = runner.train_loop
    for rate, wanted in zip(all_rates(runner), spans, strict=True):
        was = span(rate)
        longer = wanted["end"] - was["end"]
        if longer and wanted["end"] == (loop.max_epochs if rate.by_epoch else loop.max_iters):
            rate.end += longer
            if "total_iters" in was:
                rate.total_iters += longer
            if "T_max" in was and was["T_max"] == was["end"] - was["begin"]:
                rate.T_max += longer
            runner.logger.warning(
                f"{type(rate).__name__} ended at {was['end']} in {path} and now ends at {rate.end}; the rate "
                f"goes on from {rate.optimizer.param_groups[0]['lr']:g}. For the rate of the longer schedule "
                "use --apply-changes; for all of it anew, start from the weights: "
                f"--cfg-options load_from={path}"
            )
        elif was != wanted:
            runner.logger.warning(
                f"{type(rate).__name__} goes from {was['begin']} to {was['end']}, as in {path}, and not from "
                f"{wanted['begin']} to {wanted['end']}"
            )


def take_over(runner: Any, checkpoint: Mapping[str, Any], *, anew: bool) -> list[str]:
    """Give the optimisers, built from this config, the moments of a checkpoint, and place their rates.

    Settings are the config's, and each rate is what the config's schedules give at the iteration at which the
    training goes on.

    Args:
        runner: resumed but for its optimisers and schedules.
        checkpoint: what it is resumed from.
        anew: whether the optimisers are of another type, so that they start without moments.

    Returns:
        What does not go on, for a message.
    """
    notes = []
    for name, wrapper, state in _pairs(runner.optim_wrapper, checkpoint["optimizer"]):
        problem = "is of another type" if anew else _problem(wrapper, state)
        if problem:
            notes.append(f"the optimiser{name} {problem}: it starts with fresh moments")
            continue
        groups = zip(wrapper.optimizer.param_groups, state["param_groups"], strict=True)
        own = [{**group, "params": list(stored["params"])} for group, stored in groups]
        wrapper.optimizer.load_state_dict({"state": state["state"], "param_groups": own})
        if isinstance(wrapper, AmpOptimWrapper) and state.get("loss_scaler"):
            wrapper.loss_scaler.load_state_dict(state["loss_scaler"])
    _place_rates(runner)
    return notes + [
        f"{type(rate).__name__} starts afresh, as it depends on the scores of validations"
        for rate in all_rates(runner)
        if getattr(rate, "need_val_args", False)
    ]


def _place_rates(runner: Any) -> None:
    """Take every step that the schedules, just built, would have taken until now, in the order of a training.

    Schedules build on each other's values, so that no formula gives the rate of several.
    """
    loop, rates = runner.train_loop, all_rates(runner)
    epochs = loop.epoch if isinstance(loop, EpochBasedTrainLoop) else 0
    for iteration in range(1, loop.iter + 1):
        _step(rates, by_epoch=False)
        if epochs and iteration % len(loop.dataloader) == 0:
            _step(rates, by_epoch=True)
            epochs -= 1
    for _ in range(epochs):  # an epoch had fewer iterations before
        _step(rates, by_epoch=True)


def _step(rates: list[_ParamScheduler], *, by_epoch: bool) -> None:
    for rate in rates:
        if rate.by_epoch == by_epoch:
            rate.step()
