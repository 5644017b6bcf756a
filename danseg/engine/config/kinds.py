"""What kind of value an entry of a config takes: at its top by a table, below it by what arguments are for.

A text where a number is meant is found here, before anything is built or written.
"""

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mmengine.registry as registries

from danseg.engine.config.config_parts import Part
from danseg.engine.config.signatures import parameters
from danseg.io.words import listed, shortened

_NAMES = {dict: "a dict", list: "a list", str: "a text", bool: "True or False", int: "a whole number"}
_NAMES |= {float: "a number", type(None): "None"}
_NONE = type(None)
_BY_NAME = {"None": _NONE, **{kind.__name__: kind for kind in (dict, list, str, bool, int, float)}}
_TOP: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("env_cfg", "default_hooks"), (dict,)),
    **dict.fromkeys(
        ("visualizer", "log_processor", "randomness", "auto_scale_lr", "model_wrapper_cfg", "tta_model"),
        (dict, _NONE),
    ),
    **dict.fromkeys(("data_preprocessor", "custom_imports"), (dict, _NONE)),
    **dict.fromkeys(("work_dir", "load_from", "default_scope", "experiment_name"), (str, _NONE)),
    **dict.fromkeys(("resume", "find_unused_parameters"), (bool, _NONE)),
    "compile": (bool, dict, _NONE),
    "log_level": (str, int),
    "recompute": (list, str, _NONE),
    "activation_checkpointing": (list, str, _NONE),
}
# What mmengine reads of it.
_ENVIRONMENT = {
    "env_cfg": ("cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"),
    "env_cfg.mp_cfg": ("mp_start_method", "opencv_num_threads"),
    "env_cfg.dist_cfg": ("backend", "init_backend", "timeout"),
}
_LIBRARIES = ("mmengine", "mmcv", "mmseg", "torch", "danseg")


def wrong_at_the_top(config: Mapping[str, Any]) -> Iterator[str]:
    """One message for each name at a config's top whose value no run can use."""
    for name, kinds in _TOP.items():
        if name in config and not _fits(config[name], kinds):
            yield f"{name}={shortened(config[name])}: give {_either(kinds)}"
    yield from _wrong_environment(config.get("env_cfg"))
    for name in ("recompute", "activation_checkpointing"):
        for index, one in enumerate(config[name] if isinstance(config.get(name), (list, tuple)) else ()):
            if not isinstance(one, str):
                yield f"{name}.{index}={shortened(one)}: give the name of a module"


def _wrong_environment(env_cfg: Any) -> Iterator[str]:
    env_cfg = env_cfg if isinstance(env_cfg, Mapping) else {}
    for place, known in _ENVIRONMENT.items():
        inner = env_cfg if place == "env_cfg" else env_cfg.get(place.partition(".")[2])
        if inner is not None and not isinstance(inner, Mapping):
            yield f"{place}={shortened(inner)}: give a dict"
        for name in inner if isinstance(inner, Mapping) else ():
            if name not in known:
                yield f"{place}.{name} is not known; known: {listed(known)}"
    if (env_cfg.get("dist_cfg") or {}).get("timeout") is not None:
        yield "env_cfg.dist_cfg.timeout: processes wait for each other as long as --collective-timeout says"


def wrong_arguments(part: Part, built: Callable) -> Iterator[str]:
    """One message for each argument of a part whose value cannot be what its annotation says.

    Annotations are not always whole: None, one number for another, a dict for a list of them and, in wrappers
    of optimisers, a number for a text are taken, as classes of mmengine and mmseg take some of them.
    """
    if str(getattr(built, "__module__", "")).partition(".")[0] not in _LIBRARIES:
        return  # annotations of a user's own are the user's affair
    known, _ = parameters(built)
    for key, value in part.config.items():
        one = known.get(key)
        if isinstance(value, (list, tuple)) and {bool, int} <= set(map(type, value)):
            yield f"{part.place}.{key}={shortened(value)}: give whole numbers alone, or True and False alone"
        kinds = _kinds(one.annotation) if one is not None and key not in part.read else None
        if kinds is None or value is None:
            continue
        if part.registry is registries.OPTIM_WRAPPERS and isinstance(value, (int, float)) and str in kinds:
            continue
        if {list, dict} & set(kinds) and isinstance(value, (list, tuple, Mapping)):
            continue
        if not _fits(value, kinds):
            yield f"{part.place}.{key}={shortened(value)}: give {_either(kinds)}"


def _kinds(annotation: Any) -> tuple[type, ...] | None:
    """The plain kinds that an annotation names; None if it names others, which nobody writes in a config."""
    if isinstance(annotation, str):  # a module that postpones them
        found = [_BY_NAME.get(name.strip()) for name in annotation.split("|")]
        return None if None in found else tuple(kind for kind in found if kind is not None)
    if annotation is None:
        return (_NONE,)
    if annotation in _NAMES:
        return (annotation,)
    origin = typing.get_origin(annotation) or annotation
    if origin in (typing.Union, types.UnionType):
        several = [_kinds(one) for one in typing.get_args(annotation)]
        return (
            None if None in several else tuple(dict.fromkeys(kind for one in several for kind in one or ()))
        )
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        return (list,)
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return (dict,)
    return None


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool({bool, int, float} & set(kinds))
    if isinstance(value, int):
        return bool({int, float} & set(kinds)) or (bool in kinds and value in (0, 1))
    if isinstance(value, float):
        return bool({int, float} & set(kinds))
    if isinstance(value, (list, tuple)):
        return list in kinds
    if isinstance(value, Mapping):
        return dict in kinds
    if value is None or isinstance(value, str):
        return type(value) in kinds
    return True  # an object that a Python config has made


def _either(kinds: tuple[type, ...]) -> str:
    return listed([_NAMES[kind] for kind in kinds]).replace(", ", " or ")
