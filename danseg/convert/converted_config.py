"""The config that a converted network needs: a recipe, and what the network has otherwise."""

import json
import os
from collections.abc import Mapping
from keyword import iskeyword
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmseg.registry import MODELS

from danseg.convert.source import Network
from danseg.convert.structure import UNSAID, Settings, defaults
from danseg.engine.config.config_file import load_config
from danseg.engine.config.find_config import SCOPE, find_config
from danseg.engine.config.nested import nest
from danseg.errors import UserError
from danseg.shipped import shipped

# Of which of danseg's data sets a network is, by the number of its classes. Others are somebody's own.
DATASETS = {19: "cityscapes", 150: "ade20k", 21: "voc2012", 11: "camvid"}
_OWN = "folder"
_RESNETS = ("ResNet", "ResNetV1c", "ResNetV1d", "VariantResNet", "CeilPooledResNet")
# What a head of another type keeps of the recipe's.
_KEPT = ("in_index", "dropout_ratio", "norm_cfg", "loss_decode", "sampler")


class Base(NamedTuple):
    """The config that a converted one stands on.

    Attributes:
        name: as ``_base_`` names it, from the folder of the converted config.
        dataset: of danseg's data sets the one it is for; None for a config that the user has named.
        config: what it holds.
    """

    name: str
    dataset: str | None
    config: Config


def find_base(network: Network, asked: str | Path | None, folder: Path) -> Base:
    """The recipe that comes nearest to a network, or the config that the user has named.

    Raises:
        UserError: there is no such config.
    """
    if asked is not None:
        path = find_config(asked)
        ours = path.resolve().parent == shipped("configs").resolve()
        name = f"{SCOPE}::{path.stem}" if ours else os.path.relpath(path, folder)
        return Base(name, None, load_config(path))
    dataset = "cityscapes" if network.classes is None else DATASETS.get(network.classes, _OWN)
    name = next(
        name for name in _candidates(network, dataset) if (shipped("configs") / f"{name}.py").is_file()
    )
    return Base(f"{SCOPE}::{name}", dataset, load_config(shipped("configs") / f"{name}.py"))


def _candidates(network: Network, dataset: str) -> list[str]:
    """Recipes by name, the nearest first; the last one, on which every network can stand, is always there."""
    depth = network.model["backbone"]["depth"]
    crop = network.data(dataset).get("crop_size")
    names = [f"{network.name}_r{one}_{dataset}" for one in (depth, 50 if depth < 101 else 101, 50)]
    sized = [f"{name}_{crop[0]}x{crop[1]}" for name in names[:1] if crop]
    return [*sized, *names, f"_base_/recipes/{dataset}"]


def settings_over(base: Base, network: Network, options: Mapping[str, Any]) -> Settings:
    """What a converted config sets over its base, in nested dicts.

    Args:
        base: its base.
        network: the network.
        options: the user's own settings, by dotted keys; they win.
    """
    data = network.data(base.dataset) if base.dataset else {}
    test_cfg = data.pop("test_cfg", None)
    model = dict(network.model)
    if test_cfg:
        model["test_cfg"] = test_cfg
    found: Settings = {name: value for name, value in data.items() if not _same(base.config.get(name), value)}
    if base.dataset == _OWN:
        found["num_classes"] = network.classes
        for part in ("decode_head", "auxiliary_head"):
            if model.get(part):
                model[part] = {name: value for name, value in model[part].items() if name != "num_classes"}
    backbone = model["backbone"]
    recompute = [name for name in base.config.get("recompute") or [] if name != "backbone.stem"]
    if not _has_stem(backbone) and recompute != base.config.get("recompute", []):
        found["recompute"] = recompute
    if network.classes is not None:
        model["pretrained"] = None
    changed = _model_over(base.config.model, model)
    if changed:
        found["model"] = changed
    for key, value in options.items():
        nest(found, key.split("."), value)
    return found


def _has_stem(backbone: Settings) -> bool:
    return backbone["type"] in ("ResNetV1c", "ResNetV1d") or bool(backbone.get("deep_stem"))


def _model_over(base: Mapping[str, Any], wanted: Settings) -> Settings:
    """The entries of ``model`` that differ from those of the base."""
    found: Settings = {}
    for name, value in wanted.items():
        old = base.get(name)
        if not isinstance(value, Mapping) or not isinstance(old, Mapping):
            if not _same(old, value):
                found[name] = value
            continue
        kind = value.get("type", old.get("type"))
        related = old.get("type") in (None, kind) or {kind, old.get("type")} <= set(_RESNETS)
        if not related:
            found[name] = {"_delete_": True, **{k: old[k] for k in _KEPT if k in old}, **value}
            continue
        usual = defaults(MODELS.get(kind)) if isinstance(kind, str) and MODELS.get(kind) else {}
        differs = {
            # A dict takes the place of what is there: it would be merged into another dict.
            k: {"_delete_": True, **v} if isinstance(v, Mapping) and old.get(k) is not None else v
            for k, v in value.items()
            if not _same(old.get(k, usual.get(k)), v)
        }
        if differs:
            found[name] = differs
    return found


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal, be their sequences lists or tuples."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def config_text(base: Base, settings: Settings, header: str) -> str:
    """The text of a converted config."""
    said = "".join(f"{name} = {_code(value, '')}\n" for name, value in settings.items())
    return (
        "".join(f"# {line}\n" for line in header.splitlines())
        + f"_base_ = {_code(base.name, '')}\n"
        + (f"\n{said}" if said else "")
    )


def _code(value: Any, indent: str) -> str:
    """A value as configs write it, with dicts that are long in several lines."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # as Python writes it, in double quotes
    if isinstance(value, (list, tuple)):
        inner = ", ".join(_code(one, indent) for one in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)" if len(value) == 1 else f"({inner})"
    if not isinstance(value, Mapping) or not all(map(_is_name, value)):
        return repr(value)
    entries = {key: _code(one, f"{indent}    ") for key, one in value.items()}
    line = f"dict({', '.join(f'{key}={text}' for key, text in entries.items())})"
    if len(indent) + len(line) < 90 and "\n" not in line:
        return line
    lines = "".join(f"{indent}    {key}={text},\n" for key, text in entries.items())
    return f"dict(\n{lines}{indent})"


def _is_name(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier() and not iskeyword(key)


def check_asked(network: Network, options: Mapping[str, Any], path: Path) -> None:
    """Refuse a network of which the tensors leave something open that has no usual value.

    Raises:
        UserError: ``options`` do not settle it either.
    """
    head = network.model["decode_head"]
    asked = [name for name in UNSAID.get(head.get("type"), ()) if name not in head]
    open_ones = [place for name in asked if (place := f"model.decode_head.{name}") not in options]
    if open_ones:
        raise UserError(
            f"the tensors of {path} do not say {' and '.join(open_ones)}: give "
            + " ".join(f"{place}=..." for place in open_ones)
            + " after --cfg-options"
        )
