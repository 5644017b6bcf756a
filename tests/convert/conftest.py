from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from danseg.convert import Converted, convert

TINY = Path(__file__).resolve().parents[1] / "engine" / "tiny.py"


@pytest.fixture
def image() -> Tensor:
    """Two normalised images with sides of 8n + 1 pixels, of unequal length."""
    return torch.randn(2, 3, 49, 65, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Save a checkpoint as torch does."""

    def save(content: dict, name: str = "theirs.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def brought(tmp_path: Path, saved) -> Callable[..., Converted]:
    """Convert a checkpoint, given as its content, with all that :func:`danseg.convert.convert` takes."""

    def bring(source: str, content: dict, **how) -> Converted:
        return convert(source, saved(content), tmp_path / "ours" / "ours.pth", **how)

    return bring


@pytest.fixture(scope="session")
def trained(tmp_path_factory, rendered_root) -> Path:
    """The work dir of a training of four iterations, whose weights are averaged."""
    from danseg.engine.config.config_file import load_config
    from danseg.engine.train import train

    folder = tmp_path_factory.mktemp("people") / "ann" / "secret"
    folder.mkdir(parents=True)
    path = folder / "danet_tiny.py"
    path.write_text(f'_base_ = ["{TINY}"]\ncustom_hooks = [dict(type="EMAHook", momentum=0.3)]\n')
    config = load_config(path, {"data_root": rendered_root, "randomness": {"seed": 3}})
    config.launcher, config.work_dir = "none", str(folder / "work")
    train(config, log=lambda _: None)
    return folder / "work"
