"""Configs that one entry breaks: what the check says about them, one line for each disagreement."""

import copy
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from danseg.engine.config.agreement import disagreements
from danseg.engine.config.config_file import load_config

TINY = Path(__file__).parents[1] / "engine" / "tiny.py"


@functools.cache
def _tiny() -> Config:
    return load_config(TINY)


def tiny_with(options: Mapping[str, Any]) -> Config:
    """The smallest training with some entries changed, dicts among them as a whole; no data is read."""
    init_default_scope("mmseg")
    config = copy.deepcopy(_tiny())
    for key, value in options.items():
        *parents, name = key.split(".")
        node: Any = config
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node[parent]
        node[int(name) if isinstance(node, list) else name] = value
    return config


def messages(options: Mapping[str, Any], task: str = "train") -> list[str]:
    return list(disagreements(tiny_with(options), task))


def only_names(found: list[str], *keys: str) -> None:
    """There is one message, and it has all the keys, each as a whole."""
    assert len(found) == 1, found
    for key in keys:
        assert re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.]*\w)", found[0]), (key, found[0])
