"""What a config has built, and where: types and arguments that do not exist are found before anything is built.

mmengine builds a config's parts at different times: the network when a run starts, the optimiser, its
schedule and the loops later, a visualiser's back end when it first writes. :func:`unknown_names` walks all
of them at once. What only a constructor finds out gets its place in the config from :func:`naming_places`.
"""

import ast
import difflib
import functools
import importlib.util
import inspect
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import mmengine.registry as registries
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import Registry, build_from_cfg
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, TestLoop, ValLoop
from torch.utils.data import DataLoader

from danseg.errors import UserError
from danseg.io.words import listed

SPLITS = {"train": ("train", "val"), "test": ("test",)}  # whose data a task reads

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
_NO_ARGUMENTS = {"type", "_scope_"}  # keys that the registry reads


class Part(NamedTuple):
    """A dict of a config from which something is built."""

    place: str  # its dotted key
    config: Mapping[str, Any]
    registry: Registry  # that its type is looked up in
    default: Callable | None = None  # what is built if it names no type
    given: frozenset[str] = frozenset()  # arguments that the builder adds
    read: frozenset[str] = frozenset()  # keys that the builder reads itself
    arguments: bool = True  # whether its other keys are exactly the type's arguments


def parts(config: Mapping[str, Any], task: str) -> Iterator[Part]:
    """Everything that a run builds from ``config``, in the config's order of places.

    Args:
        config: the whole config.
        task: "train" or "test".
    """
    # With test-time augmentation another model wraps the network; options name the network's place.
    model = config.get("model") or {}
    if isinstance(model.get("module"), Mapping):
        yield Part("tta_model", model, registries.MODELS, given=frozenset({"module"}))
        model = model["module"]
    yield from _network_parts("model", model)
    if isinstance(config.get("data_preprocessor"), Mapping) and "data_preprocessor" not in model:
        yield Part("data_preprocessor", config["data_preprocessor"], registries.MODELS)
    for split in SPLITS[task]:
        yield from _loader_parts(f"{split}_dataloader", config.get(f"{split}_dataloader"))
        if split != "train":
            yield from _evaluator_parts(f"{split}_evaluator", config.get(f"{split}_evaluator"))
        yield from _loop_part(f"{split}_cfg", config.get(f"{split}_cfg"))
    if task == "train":
        yield from _optimiser_parts("optim_wrapper", config.get("optim_wrapper"))
        for place, one in dicts_of("param_scheduler", config.get("param_scheduler")):
            if "type" in one:
                given = frozenset({"optimizer", "epoch_length", "end"})
                read = frozenset({"convert_to_iter_based"})
                yield Part(place, one, registries.PARAM_SCHEDULERS, None, given, read)
    for key in ("default_hooks", "custom_hooks"):
        for place, one in dicts_of(key, config.get(key), named=key == "default_hooks"):
            yield Part(place, one, registries.HOOKS, read=frozenset({"priority"}))
    visualizer = config.get("visualizer")
    if isinstance(visualizer, Mapping):
        given = frozenset({"name", "save_dir", "vis_backends"})
        yield Part("visualizer", visualizer, registries.VISUALIZERS, given=given)
        for place, one in dicts_of("visualizer.vis_backends", visualizer.get("vis_backends")):
            yield Part(place, one, registries.VISBACKENDS, given=frozenset({"save_dir"}))
    if isinstance(config.get("log_processor"), Mapping):
        yield Part("log_processor", config["log_processor"], registries.LOG_PROCESSORS, LogProcessor)
    if isinstance(config.get("model_wrapper_cfg"), Mapping):
        wrapper = config["model_wrapper_cfg"]
        yield Part("model_wrapper_cfg", wrapper, registries.MODEL_WRAPPERS, arguments=False)


def dicts_of(place: str, value: Any, named: bool = False) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The dicts of a list, or a single one, with their dotted keys; ``named``: the dicts inside a dict."""
    if isinstance(value, Mapping) and (named or (value and all(map(_holds_dicts, value.values())))):
        for key, one in value.items():
            yield from dicts_of(f"{place}.{key}", one)
    elif isinstance(value, Mapping):
        yield place, value
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from dicts_of(f"{place}.{index}", one)


def _holds_dicts(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(one, Mapping) for one in value)
    )


# Keys of a network's config below which a type always is a name of this registry: exactly the type's
# arguments follow, or a layer's, which its builder edits.
_BUILT = {"data_preprocessor", "backbone", "neck", "decode_head", "auxiliary_head", "loss_decode"}
_LAYERS = {"norm_cfg", "act_cfg", "conv_cfg"}


def _network_parts(place: str, config: Any, exact: bool = True) -> Iterator[Part]:
    if not isinstance(config, Mapping):
        return
    if "type" in config or place == "model":
        yield Part(place, config, registries.MODELS, arguments=exact)
    for key, value in config.items():
        for inner, one in dicts_of(f"{place}.{key}", value):
            if key in _BUILT:
                yield from _network_parts(inner, one)
            elif key in _LAYERS and "type" in one:
                yield Part(inner, one, registries.MODELS, arguments=False)
            elif key == "plugins" and isinstance(one.get("cfg"), Mapping):
                yield Part(f"{inner}.cfg", one["cfg"], registries.MODELS, arguments=False)
            elif key == "init_cfg" and "type" in one:
                yield Part(inner, one, registries.WEIGHT_INITIALIZERS, arguments=False)
            elif key == "sampler" and "_head" in place and "type" in one:
                yield Part(inner, one, registries.TASK_UTILS, given=frozenset({"context"}))


def _loader_parts(place: str, loader: Any) -> Iterator[Part]:
    if not isinstance(loader, Mapping):
        return
    read = frozenset({"num_batch_per_epoch", "disable_subprocess_warning"})
    yield Part(place, loader, registries.DATASETS, DataLoader, frozenset({"sampler"}), read)
    yield from _dataset_parts(f"{place}.dataset", loader.get("dataset"))
    for key, given in (("sampler", {"dataset", "seed"}), ("batch_sampler", {"sampler", "batch_size"})):
        if isinstance(loader.get(key), Mapping):
            yield Part(f"{place}.{key}", loader[key], registries.DATA_SAMPLERS, given=frozenset(given))
    for key, given in (("collate_fn", {"data_batch"}), ("worker_init_fn", {"worker_id"})):
        if isinstance(loader.get(key), Mapping):
            yield Part(f"{place}.{key}", loader[key], registries.FUNCTIONS, given=frozenset(given))


def _dataset_parts(place: str, dataset: Any) -> Iterator[Part]:
    if not isinstance(dataset, Mapping):
        return
    yield Part(place, dataset, registries.DATASETS)
    for key in ("dataset", "datasets"):
        for inner, one in dicts_of(f"{place}.{key}", dataset.get(key)):
            yield from _dataset_parts(inner, one)
    yield from transform_parts(f"{place}.pipeline", dataset.get("pipeline"))


def transform_parts(place: str, transforms: Any) -> Iterator[Part]:
    """The transforms of a pipeline, also those inside mmcv's own wrappers (TestTimeAug, RandomApply, ...)."""
    for inner, one in dicts_of(place, transforms):
        part = Part(inner, one, registries.TRANSFORMS)
        yield part
        built = resolve(part)
        if built is not None and str(built.__module__).startswith("mmcv.transforms"):
            yield from transform_parts(f"{inner}.transforms", one.get("transforms"))


def _evaluator_parts(place: str, evaluator: Any) -> Iterator[Part]:
    if isinstance(evaluator, Mapping) and "metrics" in evaluator:
        yield Part(place, evaluator, registries.EVALUATOR, Evaluator)
        place, evaluator = f"{place}.metrics", evaluator["metrics"]
    for inner, one in dicts_of(place, evaluator):
        yield Part(inner, one, registries.METRICS)


def _loop_part(place: str, loop: Any) -> Iterator[Part]:
    if isinstance(loop, Mapping):
        epochs = IterBasedTrainLoop if loop.get("by_epoch") is False else EpochBasedTrainLoop
        default = {"train_cfg": epochs, "val_cfg": ValLoop, "test_cfg": TestLoop}[place]
        given = frozenset({"runner", "dataloader", "evaluator"})
        read = frozenset() if "type" in loop else frozenset({"by_epoch"})
        yield Part(place, loop, registries.LOOPS, default, given, read)


def _optimiser_parts(place: str, wrapper: Any) -> Iterator[Part]:
    if not isinstance(wrapper, Mapping):
        return
    constructor = wrapper.get("constructor")
    own = True
    if constructor is not None:
        part = Part(f"{place}.constructor", {"type": constructor}, registries.OPTIM_WRAPPER_CONSTRUCTORS)
        yield part._replace(arguments=False)
        built = resolve(part)
        own = built is None or str(built.__module__).startswith(("mmengine.", "mmseg."))
    if isinstance(wrapper.get("optimizer"), Mapping):
        read = frozenset({"constructor", "paramwise_cfg", "optimizer"})
        yield Part(place, wrapper, registries.OPTIM_WRAPPERS, OptimWrapper, read=read, arguments=own)
        given = frozenset({"params"})
        yield Part(f"{place}.optimizer", wrapper["optimizer"], registries.OPTIMIZERS, given=given)


@contextmanager
def _scope(part: Part) -> Iterator[Registry]:
    with part.registry.switch_scope_and_registry(part.config.get("_scope_")) as registry:
        yield registry


def resolve(part: Part) -> Callable | None:
    """The class or function that a part's type names; None if there is none."""
    kind = part.config.get("type", part.default)
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    with _scope(part) as registry:
        try:
            return registry.get(kind)
        except RuntimeError:  # so mmengine ends when a dotted name cannot be imported
            return None


@functools.cache
def parameters(built: Callable) -> tuple[Mapping[str, inspect.Parameter], bool]:
    """The arguments of a class or function, and whether it may take others that its signature does not name.

    A class that takes ``**kwargs`` has the arguments of its parent's ``__init__``, too.
    """
    found: dict[str, inspect.Parameter] = {}
    for function in _initialisers(built):
        try:
            own = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # written in C
            return found, True
        names = [one for one in own if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        for one in names[1:] if inspect.isclass(built) else names:  # without self
            found.setdefault(one.name, one)
        keywords = next((one.name for one in own if one.kind is one.VAR_KEYWORD), None)
        if keywords is None:
            return found, False
        goes_up, names_read = _use_of_keywords(function, keywords)
        found.update((name, inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)) for name in names_read)
        if not goes_up:
            return found, not _swallows(built, function)
    return found, True


def _initialisers(built: Callable) -> Iterator[Callable]:
    if not inspect.isclass(built):
        yield built
        return
    for cls in built.__mro__:
        if "__init__" in vars(cls) and cls is not object:
            yield vars(cls)["__init__"]


def _swallows(built: Callable, function: Callable) -> bool:
    """Whether a function's ``**kwargs`` are known to have no use, although it stores them."""
    return function is CheckpointHook.__init__  # it would repeat arguments of save_checkpoint


def _use_of_keywords(function: Callable, keywords: str) -> tuple[bool, set[str]]:
    """Whether ``**kwargs`` goes to the parent's ``__init__`` and nowhere else, and the names read from it."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return False, set()
    names: set[str] = set()
    handled: set[int] = set()
    up = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            goes_up = isinstance(node.func, ast.Attribute) and node.func.attr == "__init__"
            for keyword in node.keywords:
                if keyword.arg is None and _is_name(keyword.value, keywords) and goes_up:
                    handled.add(id(keyword.value))
                    up = True
            if isinstance(node.func, ast.Attribute) and _is_name(node.func.value, keywords):
                if node.func.attr in ("pop", "get", "setdefault") and node.args:
                    names |= _text(node.args[0])
                if node.func.attr in ("pop", "get", "setdefault", "update"):
                    handled.add(id(node.func.value))
        elif isinstance(node, ast.Subscript) and _is_name(node.value, keywords):
            names |= _text(node.slice)
            handled.add(id(node.value))
        elif isinstance(node, ast.Compare) and _is_name(node.comparators[0], keywords):
            names |= _text(node.left)
            handled.add(id(node.comparators[0]))
    others = any(_is_name(node, keywords) and id(node) not in handled for node in ast.walk(tree))
    return up and not others, names


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _text(node: ast.AST) -> set[str]:
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def argument(part: Part, name: str) -> Any:
    """The value of an argument: as the config says, or else the type's default; None if it has none."""
    if name in part.config:
        return part.config[name]
    built = resolve(part)
    one = parameters(built)[0].get(name) if built is not None else None
    return None if one is None or one.default is one.empty else one.default


def unknown_names(config: Mapping[str, Any], task: str) -> Iterator[str]:
    """One message for each type or argument in a config that does not exist, and each package it lacks."""
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
        yield from _unknown_architecture(part, built)


def _unknown_type(part: Part) -> str:
    kind = part.config.get("type")
    constructor = part.place.endswith(".constructor")
    said = f"{part.place}{'' if constructor else '.type'}={kind!r}"
    if not isinstance(kind, str):
        return f"{said} is neither a registered name nor a class"
    scope, dot, _ = kind.partition(".")
    if dot and importlib.util.find_spec(scope) is None:
        return _not_installed(said, scope)
    with _scope(part) as registry:
        known: set[str] = set()
        node: Registry | None = registry
        while node is not None:
            known |= set(node.module_dict)
            node = node.parent
        hint = did_you_mean(kind.rpartition(".")[2], known)
        return f"{said}: there is no such {registry.name}{hint or ', and no similar name'}"


def _not_installed(said: str, scope: str) -> str:
    return f"{said}: the package {scope!r} is not installed: pip install {MODULE2PACKAGE.get(scope, scope)}"


def _missing_scopes(config: Any) -> Iterator[tuple[str, str]]:
    """Places and packages of types below a dict, which no :class:`Part` names, of packages not installed."""
    for key, value in config.items():
        if key in _BUILT:
            continue
        for inner, one in _all_dicts(f".{key}", value):
            scope, dot, _ = str(one.get("type")).partition(".")
            if dot and scope in MODULE2PACKAGE and importlib.util.find_spec(scope) is None:
                yield f"{inner}.type={one['type']!r}", scope


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """', did you mean ...' with the most similar known name; empty if none is similar."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


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
        for one in _own_parameters(built)
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
        yield f"{part.place}.{key}={_short(value)}: {name} has no argument {key!r}{hint}"
    for key in sorted(missing):
        yield f"{part.place}.{key} is missing: {name} needs it"


def _own_parameters(built: Callable) -> list[inspect.Parameter]:
    function = next(_initialisers(built), None)
    try:
        own = list(inspect.signature(function).parameters.values()) if function is not None else []
    except (TypeError, ValueError):
        return []
    return own[1:] if inspect.isclass(built) else own


def _unknown_architecture(part: Part, built: Callable) -> Iterator[str]:
    settings = getattr(built, "arch_settings", None)
    for key in ("depth", "arch", "stdc_type") if isinstance(settings, Mapping) else ():
        value = part.config.get(key)
        if isinstance(value, (int, str)) and value not in settings:
            yield f"{part.place}.{key}={value!r}: {built.__name__} has {', '.join(map(str, settings))}"


def unread_paramwise_keys(config: Mapping[str, Any]) -> Iterator[str]:
    """Keys of ``optim_wrapper.paramwise_cfg`` that mmengine's constructor does not read, and says nothing of."""
    wrapper = config.get("optim_wrapper") or {}
    rules = wrapper.get("paramwise_cfg") or {}
    if wrapper.get("constructor", "DefaultOptimWrapperConstructor") not in (
        "DefaultOptimWrapperConstructor",
        DefaultOptimWrapperConstructor,
    ):
        return
    known = _names_read(DefaultOptimWrapperConstructor, "paramwise_cfg")
    for key in set(rules) - known:
        hint = did_you_mean(key, known)
        yield f"optim_wrapper.paramwise_cfg.{key}={_short(rules[key])}: nothing reads it{hint}"


def _names_read(cls: type, attribute: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls)))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr == "get" and getattr(node.func.value, "attr", None) == attribute:
                names |= _text(node.args[0])
        elif isinstance(node, ast.Subscript) and getattr(node.value, "attr", None) == attribute:
            names |= _text(node.slice)
    return names


@contextmanager
def naming_places(config: Mapping[str, Any]) -> Iterator[None]:
    """Turn an error of building a part of ``config`` into one that says which part it was.

    Raises:
        UserError: instead of an error that a constructor raised because of the config. An error in code of
            the user's own keeps its traceback, unless it is a ``ValueError`` or an unknown argument.
    """
    try:
        yield
    except (TypeError, ValueError, KeyError, AssertionError, ImportError, OSError, UserError) as error:
        built = _built(error)
        place = place_of(config, built) if built is not None else ""
        if not place or built is None:
            raise
        if not isinstance(error, (UserError, ValueError, ImportError)) and not _by_a_library(error):
            raise
        kind = built.get("type")
        name = kind if isinstance(kind, str) else getattr(kind, "__name__", kind)
        file = getattr(config, "filename", None)
        raise UserError(f"{f'config {file}: ' if file else ''}{place} ({name}): {_reason(error)}") from error


def _built(error: BaseException) -> Mapping[str, Any] | None:
    """The dict from which something was being built when an error was raised."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is build_from_cfg.__code__:
            found = frame.f_locals.get("cfg", found)
    return found


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
    """The dotted keys at which a config holds a dict: those of equal ones, or else of the most similar one."""
    best, places = 0, []
    for root in _ROOTS:
        for place, one in _all_dicts(root, config.get(root)):
            if one.get("type") != part.get("type"):
                continue
            same = 10**6 if one == part else 1 + sum(part.get(key) == value for key, value in one.items())
            if same > best:
                best, places = same, []
            if same == best:
                places.append(place)
    return " and ".join(dict.fromkeys(places))


def _all_dicts(place: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        yield place, value
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for key, child in items:
        yield from _all_dicts(f"{place}.{key}", child)


def _short(value: Any) -> str:
    return textwrap.shorten(repr(value), 60, placeholder=" ...")
