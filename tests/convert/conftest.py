from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from danseg.convert import Converted, convert


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
