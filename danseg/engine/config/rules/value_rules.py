"""Values of arguments that libraries take without a look, and fail on late, or never."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.registry import MODELS

from danseg.engine.config.config_parts import as_dict
from danseg.engine.config.rules.run import Run, is_a, is_known
from danseg.engine.config.signatures import parameters
from danseg.engine.numbers import is_number
from danseg.io.words import listed

_CLIPPING = {
    "norm": ("type", "max_norm", "norm_type", "error_if_nonfinite", "foreach"),
    "value": ("type", "clip_value", "foreach"),
}
_FACTORS = ("lr_mult", "decay_mult")  # what mmengine reads of a module's own rates


def names_of_checkpoints(run: Run) -> Iterator[str]:
    """Without its number, each checkpoint would replace the one before."""
    for hook in run.hooks():
        name = hook.config.get("filename_tmpl")
        if is_a(hook, CheckpointHook) and isinstance(name, str) and name.count("{}") != 1:
            yield f"{hook.place}.filename_tmpl={name!r}: write {{}} once, where the number comes"
        if is_a(hook, CheckpointHook) and isinstance(name, str) and "/" in name:
            yield f"{hook.place}.filename_tmpl={name!r}: give a file's name; out_dir is its folder"


def clipping(run: Run) -> Iterator[str]:
    """``clip_grad`` of an optimiser's wrapper."""
    place = "optim_wrapper.clip_grad"
    given = as_dict(as_dict(run.config.get("optim_wrapper")).get("clip_grad"))
    kind = given.get("type", "norm")
    if kind not in _CLIPPING:
        yield f"{place}.type={kind!r}: choose {' or '.join(map(repr, _CLIPPING))}"
        return
    for name, value in given.items():
        if name not in _CLIPPING[kind]:
            yield f"{place}.{name} is not known; known: {listed(_CLIPPING[kind])}"
        elif name in ("max_norm", "norm_type", "clip_value") and not (is_number(value) and value > 0):
            yield f"{place}.{name}={value!r}: give a number above 0"


def own_rates(run: Run) -> Iterator[str]:
    """``paramwise_cfg.custom_keys``: rates of modules by name."""
    place = "optim_wrapper.paramwise_cfg.custom_keys"
    own = as_dict(as_dict(run.config.get("optim_wrapper")).get("paramwise_cfg")).get("custom_keys")
    if own is not None and not isinstance(own, Mapping):
        yield f"{place}={own!r}: give a dict of modules' names and dicts with lr_mult and decay_mult"
    for name, factors in (own if isinstance(own, Mapping) else {}).items():
        if not isinstance(factors, Mapping):
            yield f"{place}.{name}={factors!r}: give a dict with {' and '.join(_FACTORS)}"
            continue
        for factor, value in factors.items():
            if factor in _FACTORS and not (is_number(value) and value >= 0):
                yield f"{place}.{name}.{factor}={value!r}: give a number, 0 or more"


def averages(run: Run) -> Iterator[str]:
    """Arguments that an EMAHook hands on."""
    for hook in run.hooks():
        if not is_a(hook, EMAHook):
            continue
        kind = MODELS.get(str(hook.config.get("ema_type", "ExponentialMovingAverage")))
        own = set(parameters(EMAHook)[0]) | {"type", "priority"}
        known, takes_others = parameters(kind) if kind is not None else ({}, True)
        for name, value in hook.config.items():
            if name not in own and name not in known and not takes_others:
                yield f"{hook.place}.{name} is not known; known: {listed([*(own - {'kwargs'}), *known])}"
            elif name == "momentum" and not (is_number(value) and 0 < value < 1):
                yield f"{hook.place}.momentum={value!r}: give a number between 0 and 1"


def names_of_files(run: Run) -> Iterator[str]:
    """Endings of a data set's files, and where a network's first weights are."""
    for split in run.splits:
        for dataset in run.datasets(split):
            for name in ("img_suffix", "seg_map_suffix"):
                value = dataset.config.get(name)
                if value is not None and not isinstance(value, (str, list, tuple)):
                    yield f"{dataset.place}.{name}={value!r}: give the end of the files' names"
    network = run.network
    for place, part in (("model", network), ("model.backbone", as_dict(network.get("backbone")))):
        value = part.get("pretrained")
        if value is not None and not (isinstance(value, str) and value):
            yield f"{place}.pretrained={value!r}: give a file or an address, or None"


def sizes_and_chances(run: Run) -> Iterator[str]:
    """Sizes, ranges and probabilities of the steps of a pipeline, and of a head's dropout."""
    for split in run.splits:
        for step in filter(is_known, run.transforms(split)):
            for name in ("scale", "crop_size", "size"):
                value: Any = step.config.get(name)
                flat = isinstance(value, (list, tuple)) and all(map(is_number, value))
                if flat and (len(value) != 2 or not all(one > 0 or one == -1 for one in value)):
                    yield f"{step.place}.{name}={value!r}: give two sides of 1 or more"
            for name in ("prob", "cat_max_ratio"):
                value = step.config.get(name)
                if is_number(value) and not 0 <= value <= 1:
                    yield f"{step.place}.{name}={value!r}: give a number from 0 to 1"
            value = step.config.get("ratio_range")
            if isinstance(value, (list, tuple)) and all(map(is_number, value)):
                if len(value) != 2 or not 0 < value[0] <= value[1]:
                    yield f"{step.place}.ratio_range={value!r}: give two numbers above 0, the smaller first"
    for head in run.heads():
        value = head.config.get("dropout_ratio")
        if is_number(value) and value >= 1:  # mmseg's configs write -1 for none
            yield f"{head.place}.dropout_ratio={value!r}: give a number from 0 to below 1"
        value = head.config.get("channels")
        if is_number(value) and value < 1:
            yield f"{head.place}.channels={value!r}: give a whole number, 1 or more"


DISAGREEMENTS = (
    names_of_checkpoints,
    clipping,
    own_rates,
    averages,
    names_of_files,
    sizes_and_chances,
)
