"""A config as the rules see it: its network, heads, losses, data sets, hooks and loops, with their places."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mmengine.registry as registries
from mmengine.registry import Registry
from mmseg.models.decode_heads.decode_head import BaseDecodeHead

from danseg.engine.config.config_parts import SPLITS, Part, as_dict, parts, resolve
from danseg.engine.config.signatures import argument, parameters


class Run:
    """One task that a config is used for.

    Args:
        config: the whole config.
        task: "train" or "test".
        world_size: number of processes.
    """

    def __init__(self, config: Mapping[str, Any], task: str, world_size: int = 1) -> None:
        self.config = config
        self.task = task
        self.world_size = world_size

    @property
    def network(self) -> Mapping[str, Any]:
        """The network's config, without test-time augmentation around it."""
        model = as_dict(self.config.get("model"))
        return model["module"] if isinstance(model.get("module"), Mapping) else model

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that the task reads and the config has."""
        return tuple(
            split
            for split in SPLITS[self.task]
            if isinstance(self.config.get(f"{split}_dataloader"), Mapping)
        )

    @functools.cached_property
    def parts(self) -> list[Part]:
        return list(parts(self.config, self.task))

    def at(self, place: str) -> Iterator[Part]:
        """The parts whose place is this one or, in a list, one of its entries."""
        for part in self.parts:
            rest = part.place.removeprefix(place)
            if part.place.startswith(place) and (not rest or rest[1:].isdigit()):
                yield part

    def heads(self) -> Iterator[Part]:
        """Decode heads, of which a cascade has several, and auxiliary heads."""
        for key in ("decode_head", "auxiliary_head"):
            yield from self.at(f"model.{key}")

    def losses(self, head: Part) -> Iterator[Part]:
        """A head's losses; the default of mmseg's heads where the config names none."""
        named = False
        for part in self.at(f"{head.place}.loss_decode"):
            named = True
            yield part
        default = argument(head, "loss_decode")
        if not named and isinstance(default, Mapping):
            yield Part(f"{head.place}.loss_decode", default, registries.MODELS)

    def preprocessor(self) -> Part | None:
        for place in ("model.data_preprocessor", "data_preprocessor"):
            for part in self.at(place):
                return part
        return None

    def datasets(self, split: str) -> Iterator[Part]:
        """The data sets of a split, without wrappers."""
        for part in self._of(registries.DATASETS, f"{split}_dataloader.dataset"):
            inner = part.config.get("dataset", part.config.get("datasets"))
            if not isinstance(inner, (Mapping, list, tuple)):
                yield part

    def transforms(self, split: str) -> Iterator[Part]:
        """The transforms of a split's data sets and of the wrappers around them."""
        return self._of(registries.TRANSFORMS, f"{split}_dataloader.")

    def hooks(self) -> Iterator[Part]:
        return self._of(registries.HOOKS)

    def metrics(self, split: str) -> Iterator[Part]:
        return self._of(registries.METRICS, f"{split}_evaluator")

    def schedulers(self) -> Iterator[Part]:
        return self._of(registries.PARAM_SCHEDULERS)

    def _of(self, registry: Registry, start: str = "") -> Iterator[Part]:
        """The parts of one kind whose place starts so."""
        return (part for part in self.parts if part.registry is registry and part.place.startswith(start))

    def loop(self, split: str) -> Part | None:
        return next(self.at(f"{split}_cfg"), None)


def is_a(part: Part | None, cls: type | tuple[type, ...]) -> bool:
    """Whether what a part builds is a subclass of ``cls``."""
    built = resolve(part) if part is not None else None
    return isinstance(built, type) and issubclass(built, cls)


def has_plain_losses(head: Part) -> bool:
    """Whether a head compares its channels with the labels as mmseg's heads do.

    STDC's auxiliary head has labels of its own, and SAN's a channel for no class.
    """
    own = getattr(resolve(head), "loss_by_feat", None)
    return own is BaseDecodeHead.loss_by_feat or str(getattr(own, "__module__", "")).startswith("danseg.")


def takes(part: Part, name: str) -> bool:
    """Whether what a part builds has an argument of this name."""
    built: Callable | None = resolve(part)
    return built is not None and name in parameters(built)[0]


def module_of(part: Part) -> str:
    """The module that defines what a part builds."""
    return str(getattr(resolve(part), "__module__", ""))


def is_known(part: Part) -> bool:
    """Whether mmcv, mmengine, mmseg or danseg defines what a part builds: then its arguments are known."""
    return module_of(part).partition(".")[0] in ("mmcv", "mmengine", "mmseg", "danseg")
