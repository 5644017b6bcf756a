"""Find types and arguments of a config that do not exist before anything is built, and name their places.

mmengine builds a config's parts at different times: the network when a run starts, the optimiser, its
schedule and the loops later, a visualiser's back end when it first writes. :func:`unknown_names` walks all
of them at once. What only a constructor finds out gets its place in the config from :func:`naming_places`.
"""

import difflib
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mmengine.registry as registries
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import Registry, build_from_cfg

from danseg.engine.config.config_parts import (
    BUILT,
    SPLITS,
    Part,
    all_dicts,
    as_dict,
    parts,
    resolve,
    scope_of,
)
from danseg.engine.config.kinds import wrong_arguments
from danseg.engine.config.signatures import names_read, own_parameters, parameters
from danseg.errors import UserError
from danseg.io.words import did_you_mean, listed, shortened

# Distribution that holds the module which a visualiser's back end imports when it is first used.
_BACKEND_PACKAGES = {
    "AimVisBackend": ("aim", "aim"),
    "ClearMLVisBackend": ("clearml", "clearml"),
    "DVCLiveVisBackend": ("dvclive", "dvclive"),
    "MLflowVisBackend": ("mlflow", "mlflow"),
    "NeptuneVisBackend": ("neptune", "neptune"),
    "TensorboardVisBackend": ("tensorboard", "tensorboard"),
    "WandbVisBackend": ("wandb", "wandb"),
}
_DICTS = (
    "model",
    "optim_wrapper",
    *(f"{split}_{what}" for split in ("train", "val", "test") for what in ("dataloader", "cfg")),
)
_NO_ARGUMENTS = {"type", "_scope_"}  # keys that the registry reads


def unknown_names(config: Mapping[str, Any], task: str) -> Iterator[str]:
    """One message for each type or argument in a config that does not exist, and each package it lacks."""
    for key in _DICTS:
        value = config.get(key)
        if isinstance(value, (str, int, float, list, tuple)):  # neither a config nor an object that was built
            several = key.endswith("_dataloader") and isinstance(value, (list, tuple))
            whose = ", whose dataset is dict(type='ConcatDataset', datasets=[...])" if several else ""
            yield f"{key}={shortened(value)}: give one dict{whose}"
    yield from _texts_for_dicts(config, task)
    wrapper = as_dict(config.get("optim_wrapper"))
    if task == "train" and "optimizer" in wrapper:
        optimiser = wrapper["optimizer"]
        if optimiser is None or isinstance(optimiser, (str, int, float, list, tuple)):
            yield f"optim_wrapper.optimizer={shortened(optimiser)}: give a dict with a type"
    for part in parts(config, task):
        if "type" not in part.config and part.default is None:
            yield f"{part.place} has no type, only {listed(part.config) or 'nothing'}"
            continue
        built = resolve(part)
        if built is None:
            yield _unknown_type(part)
            continue
        missing = _missing_package(built)
        if missing:
            module, package = missing
            yield (
                f"{part.place}.type={part.config['type']!r} needs the package {module}, which is not "
                f"installed: pip install {package}"
            )
        lacking = list(_missing_scopes(part.config)) if part.registry is registries.MODELS else []
        for scope in dict.fromkeys(scope for _, scope in lacking):
            named = [f"{part.place}{inner}" for inner, other in lacking if other == scope]
            yield _not_installed(listed(named, 2), scope)
        if part.arguments and not lacking:  # mmseg's MaskFormer is another class without mmdet
            yield from _wrong_arguments(part, built)
            yield from wrong_arguments(part, built)
        yield from _unknown_architecture(part, built)


def _texts_for_dicts(config: Mapping[str, Any], task: str) -> Iterator[str]:
    """Entries of lists that are texts or numbers, where a dict is built."""
    lists = {key: config.get(key) for key in ("param_scheduler", "custom_hooks")}
    lists["visualizer.vis_backends"] = as_dict(config.get("visualizer")).get("vis_backends")
    for loader in (f"{split}_dataloader" for split in SPLITS[task]):
        keys = ("dataset", "sampler", "batch_sampler", "collate_fn")
        lists |= {f"{loader}.{key}": as_dict(config.get(loader)).get(key) for key in keys}
    lists |= {f"default_hooks.{name}": one for name, one in as_dict(config.get("default_hooks")).items()}
    lists |= {f"{split}_evaluator": config.get(f"{split}_evaluator") for split in SPLITS[task]}
    lists |= {
        f"{part.place}.pipeline": part.config.get("pipeline")
        for part in parts(config, task)
        if part.registry is registries.DATASETS
    }
    for place, value in lists.items():
        entries = enumerate(value) if isinstance(value, (list, tuple)) else [(None, value)]
        for index, one in entries:
            if isinstance(one, (str, int, float)):
                where = place if index is None else f"{place}.{index}"
                yield f"{where}={shortened(one)}: give a dict with a type"


def _unknown_type(part: Part) -> str:
    kind = part.config.get("type")
    constructor = part.place.endswith(".constructor")
    said = f"{part.place}{'' if constructor else '.type'}={kind!r}"
    if not isinstance(kind, str):
        return f"{said} is neither a registered name nor a class"
    scope, dot, _ = kind.partition(".")
    if dot and importlib.util.find_spec(scope) is None:
        return _not_installed(said, scope)
    with scope_of(part) as registry:
        known: set[str] = set()
        node: Registry | None = registry
        while node is not None:
            known |= set(node.module_dict)
            node = node.parent
        hint = did_you_mean(kind.rpartition(".")[2], known, cutoff=0.6)
        return f"{said}: there is no such {registry.name}{hint or ', and no similar name'}"


def _not_installed(said: str, scope: str) -> str:
    return f"{said}: the package {scope!r} is not installed: pip install {MODULE2PACKAGE.get(scope, scope)}"


def _missing_scopes(config: Any) -> Iterator[tuple[str, str]]:
    """Places and packages of types below a dict, which no :class:`Part` names, of packages not installed."""
    for key, value in config.items():
        if key in BUILT:
            continue
        for inner, one in all_dicts(f".{key}", value):
            scope, dot, _ = str(one.get("type")).partition(".")
            if dot and scope in MODULE2PACKAGE and importlib.util.find_spec(scope) is None:
                yield f"{inner}.type={one['type']!r}", scope


def _missing_package(built: Callable) -> tuple[str, str] | None:
    for cls in built.__mro__ if inspect.isclass(built) else ():
        module, package = _BACKEND_PACKAGES.get(cls.__name__, (None, ""))
        if module is not None and importlib.util.find_spec(module) is None:
            return module, package
    return None


def _wrong_arguments(part: Part, built: Callable) -> Iterator[str]:
    known, takes_others = parameters(built)
    name = getattr(built, "__name__", str(built))
    required = {
        one.name
        for one in own_parameters(built)
        if one.default is one.empty and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    missing = required - part.given - set(part.config)
    for key, value in part.config.items():
        if takes_others or key in known or key in _NO_ARGUMENTS | part.read:
            continue
        nearest = difflib.get_close_matches(key, missing or known, n=1, cutoff=0.6)
        nearest = nearest or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        missing -= set(nearest)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; it takes {listed(sorted(known), 12)}"
        yield f"{part.place}.{key}={shortened(value)}: {name} has no argument {key!r}{hint}"
    for key in sorted(missing):
        yield f"{part.place}.{key} is missing: {name} needs it"


def _unknown_architecture(part: Part, built: Callable) -> Iterator[str]:
    settings: Any = getattr(built, "arch_settings", None)
    for key in ("depth", "arch", "stdc_type") if isinstance(settings, Mapping) else ():
        value = part.config.get(key)
        if isinstance(value, (int, str)) and value not in settings:
            yield f"{part.place}.{key}={value!r}: {built.__name__} has {', '.join(map(str, settings))}"


def unread_paramwise_keys(config: Mapping[str, Any]) -> Iterator[str]:
    """Keys of ``optim_wrapper.paramwise_cfg`` that mmengine's constructor silently does not read."""
    wrapper = as_dict(config.get("optim_wrapper"))
    given = wrapper.get("paramwise_cfg")
    if isinstance(given, (str, int, float, list, tuple)):
        yield f"optim_wrapper.paramwise_cfg={shortened(given)}: give a dict"
    rules = as_dict(given)
    if wrapper.get("constructor", "DefaultOptimWrapperConstructor") not in (
        "DefaultOptimWrapperConstructor",
        DefaultOptimWrapperConstructor,
    ):
        return
    known = names_read(DefaultOptimWrapperConstructor, "paramwise_cfg")
    for key in set(rules) - known:
        hint = did_you_mean(str(key), known)
        yield f"optim_wrapper.paramwise_cfg.{key}={shortened(rules[key])}: nothing reads it{hint}"


@contextmanager
def naming_places(config: Mapping[str, Any]) -> Iterator[None]:
    """Turn an error of building a part of ``config`` into one that says which part it was.

    Raises:
        UserError: instead of an error that a constructor raised because of the config. An error in code of
            the user's own keeps its traceback, unless it is a ``ValueError`` or an unknown argument.
    """
    try:
        yield
    except (
        *(TypeError, ValueError, LookupError, AttributeError, AssertionError),
        *(ImportError, OSError, UserError),
    ) as error:
        built = _being_built(error)
        place = place_of(config, built.config) if built is not None else ""
        if built is None or not place:
            raise
        if not isinstance(error, (UserError, ValueError, ImportError)) and not _by_a_library(error):
            raise
        file = getattr(config, "filename", None)
        said = f"config {file}: " if file else ""
        found = list(_faults(built._replace(place=place)))
        if not found:
            kind = built.config.get("type")
            name = kind if isinstance(kind, str) else getattr(kind, "__name__", kind)
            found = [f"{place} ({name}): {_reason(error)}"]
        raise UserError(said + "; ".join(found)) from error


def _being_built(error: BaseException) -> Part | None:
    """What was being built when an error was raised, without its place."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is build_from_cfg.__code__ and isinstance(frame.f_locals.get("cfg"), Mapping):
            found = Part("", frame.f_locals["cfg"], frame.f_locals["registry"])
    return found


def _faults(part: Part) -> Iterator[str]:
    """What is wrong with the names in a part that could not be built; its missing arguments are not known."""
    built = resolve(part)
    if built is None:
        yield _unknown_type(part)
        return
    given = frozenset(one.name for one in own_parameters(built))
    yield from _wrong_arguments(part._replace(given=given), built)
    yield from _unknown_architecture(part, built)


_LIBRARIES = ("mmengine", "mmcv", "mmseg", "torch", "danseg", "numpy")


def _by_a_library(error: BaseException) -> bool:
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    return str(last.f_globals.get("__name__")).partition(".")[0] in _LIBRARIES


def _reason(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    said = f"{text} " if text else ""
    return f"{said}({type(error).__name__} in {where.filename}, line {where.lineno}: {where.line})"


_ROOTS = (
    "model",
    *(f"{split}_{what}" for split in ("train", "val", "test") for what in ("dataloader", "evaluator", "cfg")),
    "optim_wrapper",
    "param_scheduler",
    "default_hooks",
    "custom_hooks",
    "visualizer",
    "log_processor",
    "data_preprocessor",
    "model_wrapper_cfg",
)


def place_of(config: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """The dotted keys at which a config holds a dict: of all equal ones, or else of the most similar one."""
    best = 0
    places: list[str] = []
    for root in _ROOTS:
        for place, one in all_dicts(root, config.get(root)):
            if one.get("type") != part.get("type"):
                continue
            same = 10**6 if one == part else 1 + sum(part.get(key) == value for key, value in one.items())
            if same > best:
                best, places = same, []
            if same == best:
                places.append(place)
    return " and ".join(dict.fromkeys(places))
