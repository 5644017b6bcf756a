"""Rates that a config gives to modules by name have to act on some."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from danseg.engine.config.config_parts import as_dict
from danseg.errors import UserError
from danseg.io.words import did_you_mean

_PLACE = "optim_wrapper.paramwise_cfg.custom_keys"


def idle_rates(network: nn.Module, optim_wrapper: Any) -> list[str]:
    """Say which of ``custom_keys`` act on no parameter, as mmengine matches them: the longest key wins.

    Args:
        network: without wrappers.
        optim_wrapper: its config, or what was built from one, of which nothing is said.

    Raises:
        UserError: a key that matches no parameter is similar to the name of a module.
    """
    wrapper = as_dict(optim_wrapper)
    keys = as_dict(as_dict(wrapper.get("paramwise_cfg")).get("custom_keys"))
    default = wrapper.get("constructor", "DefaultOptimWrapperConstructor")
    if default not in ("DefaultOptimWrapperConstructor", DefaultOptimWrapperConstructor):
        return []
    names = [name if "." in name else f".{name}" for name, _ in network.named_parameters()]
    by_length = sorted(sorted(keys), key=len, reverse=True)
    acting = {next((key for key in by_length if key in name), None) for name in names}
    return list(_said(keys, acting, names))


def _said(keys: Mapping[str, Any], acting: set[str | None], names: list[str]) -> Iterator[str]:
    for key in keys:
        if key in acting:
            continue
        if any(key in name for name in names):
            yield f"{_PLACE}.{key} acts on nothing: longer keys take all parameters of that name"
            continue
        parts = {part for name in names for part in (*_prefixes(name), *name.split("."))}
        hint = did_you_mean(key, sorted(parts), cutoff=0.75)
        said = f"{_PLACE}.{key} is in the name of no parameter"
        if hint:
            raise UserError(said + hint)
        yield f"{said}, so it changes nothing"


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))
