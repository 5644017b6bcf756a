"""Check that a config agrees with itself before its data is read and its network is built.

A config says many things twice: classes of the data and channels of the heads, the value of ignored pixels in
five places, epochs or iterations in six. mmengine notices a difference late, or not at all.
"""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.registry import MODELS, init_default_scope

from danseg.engine.config.building import unknown_names
from danseg.engine.config.rules import (
    head_rules,
    label_rules,
    network_rules,
    number_rules,
    rate_rules,
    schedule_rules,
    value_rules,
)
from danseg.engine.config.rules.run import Run
from danseg.errors import UserError


def check_agreement(config: Config, *tasks: str) -> list[str]:
    """Check that a config names what exists, and does not contradict itself.

    Args:
        config: the whole config.
        tasks: what it is used for: "train" (with its validation), "test", or both.

    Returns:
        What the user should know, but may want: a schedule that is longer than the training, for example.

    Raises:
        UserError: the config is wrong; the message lists all that is, with keys as in ``--cfg-options``.
    """
    found = list(dict.fromkeys(one for task in tasks for one in disagreements(config, task)))
    if found:
        name = f"config {config.filename}" if config.filename else "the config"
        lines = [f"{name}: {found[0]}"]
        if len(found) > 1:
            lines = [f"{name} disagrees with itself:", *(f"  {one}" for one in found)]
        raise UserError("\n".join(lines))
    runs = [Run(config, task, get_world_size()) for task in tasks]
    rules = (*head_rules.WARNINGS, *schedule_rules.WARNINGS, *rate_rules.WARNINGS)
    return list(dict.fromkeys(said for run in runs for rule in rules for said in rule(run)))


def disagreements(config: Mapping[str, Any], task: str) -> Iterator[str]:
    """One message for each type or argument that does not exist, or each two entries that do not fit."""
    scope = config.get("default_scope") or "mmseg"
    if not isinstance(scope, str):
        yield f"default_scope={scope!r}: give the name of a package, such as 'mmseg'"
        return
    if scope not in MODELS.children and importlib.util.find_spec(scope.partition(".")[0]) is None:
        yield f"default_scope={scope!r}: there is no package of this name"
        return
    init_default_scope(scope)
    for said in _found(config, task):
        # With test-time augmentation, its pipeline has taken the place of the data set's.
        augmented = isinstance(config.get("model"), Mapping) and "module" in config["model"]
        yield re.sub(_TESTED_PIPELINE, "tta_pipeline", said) if augmented else said


def _found(config: Mapping[str, Any], task: str) -> Iterator[str]:
    yield from unknown_names(config, task)
    run = Run(config, task)
    for rules in _RULES:
        for rule in rules.DISAGREEMENTS:
            yield from rule(run)


_RULES = (label_rules, head_rules, network_rules, number_rules, schedule_rules, rate_rules, value_rules)
_TESTED_PIPELINE = r"test_dataloader\.dataset(?:\.dataset|\.datasets\.\d+)*\.pipeline"
