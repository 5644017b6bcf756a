"""Pages of tiny networks, and pictures for them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bad_files import drawn
from danseg.app import PageLimits
from danseg.app.explorer import Explorer
from danseg.app.shown_network import ShownNetwork
from few_layers import few_layers, few_layers_model


@pytest.fixture(scope="session")
def networks() -> list[ShownNetwork]:
    """DANet of a few layers, twice, with other weights."""
    config = few_layers(dict(type="DANetHead", pam_channels=4, num_classes=5))
    first, second = few_layers_model(config), few_layers_model(config)
    with torch.no_grad():
        for parameter in second.decode_head.parameters():
            parameter.mul_(-1)
    return [ShownNetwork(first, "first"), ShownNetwork(second, "second")]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> list[Path]:
    """Files of a test set."""
    folder = tmp_path_factory.mktemp("set")
    paths = [folder / f"{name}.png" for name in ("street", "square", "bridge")]
    for seed, path in enumerate(paths):
        path.write_bytes(drawn(seed))
    return paths


@pytest.fixture
def make_explorer(networks, pictures, tmp_path) -> Callable[..., Explorer]:
    """``make_explorer(count=..., **limits)``."""
    made = []

    def make(count: int = 1, **limits: Any) -> Explorer:
        folder = tmp_path / f"private{len(made)}"
        folder.mkdir()
        made.append(Explorer(networks[:count], pictures, folder, PageLimits(**limits)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def pieces() -> Callable[[bytes], AsyncIterator[bytes]]:
    """The body of a request, in two pieces."""

    async def give(content: bytes) -> AsyncIterator[bytes]:
        half = len(content) // 2
        for one in (content[:half], content[half:]):
            await asyncio.sleep(0)
            yield one

    return give
