"""Shared by tests of trainings: configs that are small enough to run in seconds."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from danseg.engine.config.config_file import load_config

TINY = Path(__file__).with_name("tiny.py")


@pytest.fixture
def tiny(tmp_path: Path, rendered_root: str) -> Callable[..., Config]:
    """Make a config from a base: ``tiny(options, base=TINY, text="")``; ``text`` is added to its file.

    mmengine distinguishes the runs of one process by their config's name, so each gets its own.
    """
    number = 0

    def make(options: Mapping[str, Any] | None = None, base: Path = TINY, text: str = "") -> Config:
        nonlocal number
        number += 1
        path = tmp_path / f"{tmp_path.name}_{number}.py"
        path.write_text(f'_base_ = ["{base}"]\n{text}')
        config = load_config(path, {"data_root": rendered_root, **(options or {})})
        config.launcher, config.work_dir = "none", str(tmp_path / "work")
        return config

    return make


@pytest.fixture
def child(tmp_path: Path) -> Callable[..., Config]:
    """Read a chain of config files: ``child(base, text, text of a child of that, ..., options=...)``."""

    def read(base: Path | str, *texts: str, options: Mapping[str, Any] | None = None) -> Config:
        for depth, text in enumerate(texts):
            path = tmp_path / f"child_{depth}.py"
            path.write_text(f"_base_ = {str(base)!r}\n{text}\n")
            base = path
        return load_config(base, options)

    return read
