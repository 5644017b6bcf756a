"""A service of a tiny network, and pictures that it takes."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import torch
from mmengine.config import Config

import exported_files
from danseg.apis import load_model, prepare_for_inference
from danseg.serve import Limits, Service, application
from served import served


@pytest.fixture(scope="session")
def model(request) -> Any:
    """A random network whose labels depend on its pictures."""
    torch.manual_seed(0)
    network = load_model(str(request.config.rootpath / "tests" / "engine" / "tiny.py"), None, "cpu")
    for name, value in network.state_dict().items():
        if name.endswith("gamma.scale"):
            value.fill_(0.8)
        elif name.endswith("conv_seg.weight"):
            value.normal_()
    return prepare_for_inference(network)


def draw(seed: int, height: int = 64, width: int = 96) -> bytes:
    """Coarse random colours, smoothed, as a PNG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture
def make_exported(request, tmp_path) -> Callable[..., Any]:
    """``make_exported(**how)``: a small network in an ONNX file, loaded, and what draws pictures."""

    def make(**how: Any) -> Any:
        config = Config.fromfile(request.config.rootpath / "tests" / "engine" / "tiny.py")
        config.model.test_cfg = dict(mode="whole")
        config.model.decode_head = dict(
            type="FCNHead", in_channels=64, channels=8, num_convs=1, concat_input=False, num_classes=19
        )
        torch.manual_seed(0)
        network = load_model(config, None, "cpu")
        return load_model(exported_files.write_model(tmp_path / "network.onnx", network, **how)), draw

    return make


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """PNGs of two sizes."""
    return [draw(seed, *((64, 96), (48, 80))[seed % 2]) for seed in range(6)]


@pytest.fixture
def make_service(model) -> Callable[..., Service]:
    """``make_service(batch_size=..., **limits)``."""

    def make(batch_size: int | None = None, **limits: Any) -> Service:
        return Service(model, Limits(**limits), batch_size)

    return make


@pytest.fixture(scope="module")
def client(model) -> Iterator[httpx.Client]:
    """A client of a service with small limits, which listens on a port."""
    service = Service(model, Limits(bytes=100_000, pixels=100_000))
    with served(service) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client


@pytest.fixture
def among_clients() -> Callable[..., Any]:
    """``among_clients(service, script)`` runs a coroutine of an ``httpx.AsyncClient`` of the service."""

    def run(service: Service, script: Callable[[httpx.AsyncClient], Any]) -> Any:
        async def inside() -> Any:
            app = application(service)
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30) as client,
            ):
                return await script(client)

        return asyncio.run(inside())

    return run
