"""The parts of a config from which mmengine builds something, each with its place and its registry."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import mmengine.registry as registries
from mmengine.evaluator import Evaluator
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, TestLoop, ValLoop
from torch.utils.data import DataLoader

SPLITS = {"train": ("train", "val"), "test": ("test",)}  # whose data a task reads


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
    model = as_dict(config.get("model"))
    if isinstance(model.get("module"), Mapping):
        yield Part("tta_model", model, registries.MODELS, given=frozenset({"module"}))
        model = model["module"]
    yield from _network_parts("model", model)
    if isinstance(config.get("data_preprocessor"), Mapping) and "data_preprocessor" not in model:
        yield from _network_parts("data_preprocessor", config["data_preprocessor"])
    for split in SPLITS[task]:
        yield from _loader_parts(f"{split}_dataloader", config.get(f"{split}_dataloader"))
        if split != "train":
            yield from _evaluator_parts(f"{split}_evaluator", config.get(f"{split}_evaluator"))
        yield from _loop_part(f"{split}_cfg", config.get(f"{split}_cfg"))
    if task == "train":
        yield from _optimiser_parts("optim_wrapper", config.get("optim_wrapper"))
        schedulers = config.get("param_scheduler")
        of_several = isinstance(schedulers, Mapping) and "type" not in schedulers  # optimisers, by name
        for place, one in dicts_of("param_scheduler", schedulers, named=of_several):
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


def as_dict(value: Any) -> Mapping[str, Any]:
    """A dict as it is, and anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def dicts_of(place: str, value: Any, named: bool = False) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The dicts of a list, or a single one, with their dotted keys; ``named``: the dicts inside a dict."""
    if isinstance(value, Mapping) and named:
        for key, one in value.items():
            yield from dicts_of(f"{place}.{key}", one)
    elif isinstance(value, Mapping):
        yield place, value
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from dicts_of(f"{place}.{index}", one)


# Keys of a network's config below which a type always is a name of this registry: exactly the type's
# arguments follow, or a layer's, which its builder edits.
BUILT = {"data_preprocessor", "backbone", "neck", "decode_head", "auxiliary_head", "loss_decode"}
_LAYERS = {"norm_cfg", "act_cfg", "conv_cfg"}


def _network_parts(place: str, config: Any) -> Iterator[Part]:
    if not isinstance(config, Mapping):
        return
    default = BaseDataPreprocessor if place.endswith("data_preprocessor") else None
    yield Part(place, config, registries.MODELS, default)
    for key, value in config.items():
        for inner, one in dicts_of(f"{place}.{key}", value):
            if key in BUILT:
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
def scope_of(part: Part) -> Iterator[Registry]:
    with part.registry.switch_scope_and_registry(part.config.get("_scope_")) as registry:
        yield registry


def resolve(part: Part) -> Callable | None:
    """The class or function that a part's type names; None if there is none."""
    kind = part.config.get("type", part.default)
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    with scope_of(part) as registry:
        try:
            return registry.get(kind)
        except RuntimeError:  # so mmengine ends when a dotted name cannot be imported
            return None


def all_dicts(place: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        yield place, value
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for key, child in items:
        yield from all_dicts(f"{place}.{key}", child)
