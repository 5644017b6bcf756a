"""What a conversion has written, and how it is told to the user."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from danseg.io.words import counted, listed
from danseg.shipped import as_started


class Converted(NamedTuple):
    """What a conversion has written.

    Attributes:
        checkpoint: the weights, under danseg's names. Those of a whole network carry the config.
        config: the config beside them, over a recipe.
        base: the recipe's name.
        settings: what the config sets over it, in nested dicts.
        backbone: whether the weights are a backbone's alone, to start a training from.
        tensors: how many of the file's tensors are in the checkpoint.
        left_out: those that the network has no place for, by the file's names.
        changed: what was done to values, in words; empty if nothing was.
        assumed: what the tensors do not say, as ``key=value`` of the config.
        needs_data: whether the config is for a data set of the user's own, which ``--data`` names.
    """

    checkpoint: Path
    config: Path
    base: str
    settings: dict[str, Any]
    backbone: bool
    tensors: int
    left_out: tuple[str, ...]
    changed: str
    assumed: tuple[str, ...]
    needs_data: bool

    def described(self) -> str:
        """What a user should know of it, in lines."""
        lines = [f"{self.checkpoint}: {counted(self.tensors, 'tensor')} under danseg's names"]
        if self.left_out:
            lines.append(f"left out, as the network has no place for it: {listed(self.left_out)}")
        if self.changed:
            lines.append(f"changed: {self.changed}")
        lines.append(f"{self.config}: the config, {self.base} with")
        lines += [f"  {one}" for one in _flat(self.settings)] or ["  nothing changed"]
        if self.assumed:
            lines.append(f"assumed, as the tensors do not say it: {listed(self.assumed, len(self.assumed))}")
        data = " --data SET" if self.needs_data else ""
        use = (
            f"train on it: python tools/train.py {self.config}"
            if self.backbone
            else f"use it: python tools/test.py {self.checkpoint}{data}, or {self.config} {self.checkpoint}"
        )
        return as_started("\n".join([*lines, use]))


def _flat(settings: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Nested settings as ``key=value`` with dotted keys."""
    for name, value in settings.items():
        if name == "_delete_":
            continue
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{place}{name}.")
        else:
            yield f"{place}{name}={value!r}"
