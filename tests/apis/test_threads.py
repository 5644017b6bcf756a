"""One model, several threads: every call gives what it gives alone, and leaves nothing behind."""

import contextlib
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import matplotlib
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from danseg import apis
from danseg.visualization import (
    attention_figure,
    comparison_figure,
    overlay,
    overview_figure,
    read_image,
    record_attention,
    save_figure,
)

rasterio = pytest.importorskip("rasterio")

THREADS = 4
HEADS = {
    "danet": dict(type="DANetHead", pam_channels=4),
    "psanet": dict(type="PSANetHead", mask_size=(5, 7)),
    "nonlocal": dict(type="NonLocalHead", mode="dot_product"),
}


@pytest.fixture
def pictures(tmp_path):
    """Pictures of 60 x 72, one a thread."""
    paths = []
    for seed in range(THREADS):
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{seed}.png")
        cv2.imwrite(str(paths[-1]), cv2.resize(coarse, (72, 60), interpolation=cv2.INTER_CUBIC))
    return paths


def random_model(
    root, make_config, name: str, prepared: bool = False, device: str | torch.device = "cpu"
) -> torch.nn.Module:
    torch.manual_seed(0)
    model = apis.load_model(make_config(root, head=HEADS[name]), None, "cpu")
    for key, value in model.state_dict().items():
        if value.dim() > 1:  # energies so small that no map is 0 and 1, logits so large that labels differ
            value.normal_(std=0.05 if "query" in key else 0.2)
    model = model.to(device)
    return apis.prepare_for_inference(model) if prepared else model


def maps_of(model, path) -> dict[str, np.ndarray]:
    found = apis.attention_maps(model, path, [(3, 3), (60, 50)])
    return {key: maps.rows for key, maps in found.items()}


def large(model, path) -> np.ndarray:
    rasterio = pytest.importorskip("rasterio")
    destination = path.with_name(f"{path.stem}-{threading.get_ident()}.tif")
    with rasterio.open(apis.predict_large(model, path, destination, overwrite=True)) as file:
        return file.read(1)


def figures(model, path) -> dict[str, np.ndarray]:
    image, labels = read_image(path), apis.predict(model, path)
    classes = dict(classes=model.dataset_meta["classes"], palette=model.dataset_meta["palette"])
    [maps, *_] = apis.attention_maps(model, path, [(3, 3), (60, 50)]).values()
    pages = dict(
        attention=attention_figure(image, maps, labels=labels, classes=classes["classes"]),
        comparison=comparison_figure(image, labels, labels, **classes),
        overview=overview_figure(image, labels, labels, maps, **classes),
    )
    files = {
        name: save_figure(page, path.with_name(f"{path.stem}-{name}-{threading.get_ident()}.png"))
        for name, page in pages.items()
    }
    return dict(
        {name: read_image(file) for name, file in files.items()},
        overlay=overlay(image, labels, classes["palette"]),
    )


def listed(model, path) -> dict[str, np.ndarray]:
    found = apis.predict(model, [path, path.read_bytes(), Image.open(path), read_image(path)], batch_size=2)
    return {str(place): labels for place, labels in enumerate(found)}


CALLS: dict[str, Callable] = dict(
    predict=apis.predict, listed=listed, large=large, maps=maps_of, figures=figures
)


def equal(found, expected) -> bool:
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(equal(found[key], expected[key]) for key in expected)
    return np.array_equal(found, expected)


@contextlib.contextmanager
def in_step(model):
    """Make the threads wait for each other within every forward pass: once before the heads, once after."""
    meet = threading.Barrier(THREADS, timeout=60)
    ends = [model.backbone.layer4, model.decode_head.conv_seg]
    handles = [end.register_forward_hook(lambda *_: (meet.wait(), None)[1]) for end in ends]
    yield
    for handle in handles:
        handle.remove()


def everything_global() -> dict:
    """What a process shares between its threads and a call might set."""
    stance = getattr(getattr(torch, "_dynamo", None), "eval_frame", None)
    return dict(
        filters=list(warnings.filters),
        showwarning=warnings.showwarning,
        threads=(torch.get_num_threads(), cv2.getNumThreads()),
        dtype=torch.get_default_dtype(),
        grad=torch.is_grad_enabled(),
        cudnn=(torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.mkldnn.enabled),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        fused=(torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()),
        random=(torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()),
        stance=str(getattr(stance, "_stance", None)),
        scope=DefaultScope.get_current_instance().scope_name,
        matplotlib=(dict(matplotlib.rcParams), matplotlib.get_backend()),
        hooks=len(torch.nn.modules.module._global_forward_pre_hooks),
    )


@pytest.mark.parametrize(
    ("name", "prepared"), [("danet", False), ("danet", True), ("psanet", False), ("nonlocal", True)]
)
@pytest.mark.parametrize("call", ["maps", "predict", "listed", "large"])
def test_the_same_call_in_every_thread(camvid, make_config, pictures, name, prepared, call, device):
    model = random_model(camvid, make_config, name, prepared, device)
    expected = [CALLS[call](model, path) for path in pictures]
    assert not any(equal(one, other) for one in expected for other in expected if one is not other)
    before = everything_global()
    with in_step(model), ThreadPoolExecutor(THREADS) as pool:
        for _ in range(3):
            found = list(pool.map(lambda path: CALLS[call](model, path), pictures))
            assert [equal(*pair) for pair in zip(found, expected, strict=True)] == [True] * THREADS
    assert everything_global() == before


def test_different_calls_at_a_time(camvid, make_config, pictures):
    """Each thread makes all calls, on all pictures, each thread in another order."""
    model = random_model(camvid, make_config, "danet")
    # A figure takes as long as a hundred of the other calls.
    jobs = [(call, path) for call in CALLS for path in pictures[: 1 if call == "figures" else THREADS]]
    expected = {(call, path): CALLS[call](model, path) for call, path in jobs}
    before = everything_global()
    start = threading.Barrier(THREADS, timeout=60)

    def all_jobs(thread: int) -> list:
        start.wait()
        turned = jobs[3 * thread :] + jobs[: 3 * thread]
        return [job for job in turned if not equal(CALLS[job[0]](model, job[1]), expected[job])]

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(all_jobs, range(THREADS))) == [[]] * THREADS
    assert everything_global() == before


def test_recordings_of_one_model_in_several_threads(camvid, make_config, device):
    model = random_model(camvid, make_config, "danet", device=device)
    images = [torch.randn(1, 3, 40, 48).to(device) for _ in range(THREADS)]

    @torch.no_grad()
    def recorded(image) -> torch.Tensor:
        with record_attention(model) as record:
            model(image, mode="tensor")
        return record["decode_head.pam"].x

    expected = [recorded(image) for image in images]
    with in_step(model), ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(recorded, images))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert not any(module._forward_pre_hooks for module in model.decode_head.modules())


def test_a_call_within_a_recording(camvid, make_config, pictures):
    """It has a recording of its own, and the one around it keeps what its own block ran."""
    model = random_model(camvid, make_config, "psanet")
    alone = maps_of(model, pictures[0])
    with torch.no_grad(), record_attention(model) as around:
        model(torch.randn(1, 3, 40, 48), mode="tensor")
        kept = around["decode_head"].x
        assert equal(maps_of(model, pictures[0]), alone)
        assert around["decode_head"].x is kept
        with record_attention(model) as within:
            model(torch.randn(1, 3, 40, 48), mode="tensor")
        assert torch.equal(around["decode_head"].x, within["decode_head"].x)
        model(torch.randn(1, 3, 40, 48), mode="tensor")
        assert not torch.equal(around["decode_head"].x, within["decode_head"].x)
