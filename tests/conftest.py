"""Settings and fixtures that every test shares."""

import functools
import importlib.util
import os
import subprocess
import sys

# Before torch is imported. More threads do not help tiny networks, and stall on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before CUDA starts: without it cuBLAS has no products that repeat to the bit.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

from collections.abc import Callable, Iterator
from itertools import compress
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.utils._triton

# Before any test file imports mmseg: its original line needs danseg's stand-in for mmcv.ops.
import danseg  # noqa: F401

torch.set_num_threads(1)

# Asked here, before a test hides the GPU: the driver reads CUDA_VISIBLE_DEVICES only now.
GPU = torch.cuda.is_available()
if GPU:  # so does the compiler, once and for all devices
    torch.utils._triton.has_triton()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that is not marked ``cuda``, and what it starts, sees a machine without a GPU.

    By default danseg computes on a GPU where there is one; most tests mean numbers, messages and processes of
    a CPU.
    """
    if not GPU or item.get_closest_marker("cuda"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        hide_gpus(patch)
        return (yield)


def hide_gpus(patch: pytest.MonkeyPatch) -> None:
    """Make this process and those that it starts see a machine without a GPU."""
    patch.setattr("mmengine.device.utils.DEVICE", "cpu")  # found once, when mmengine is imported
    patch.setattr(torch.cuda, "is_available", lambda: False)
    patch.setattr(torch.cuda, "device_count", lambda: 0)
    patch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a test that ran on the GPU until it asks for this, by ``getfixturevalue``."""
    hide_gpus(monkeypatch)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``device`` on the CPU, and on a GPU where there is one.

    Without a GPU, the runs on it appear, as skipped, only where ``-m cuda`` asks for them.
    """
    if "device" not in metafunc.fixturenames:
        return
    devices = [pytest.param("cpu", id="cpu")]
    if GPU or "cuda" in metafunc.config.getoption("markexpr"):
        needs = pytest.mark.skipif(not GPU, reason="needs a CUDA device")
        devices.append(pytest.param("cuda", id="cuda", marks=[pytest.mark.cuda, needs]))
    metafunc.parametrize("device", devices, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the GPU's runs of cases that the CPU alone has (``tests/support/cpu_alone.py``)."""
    left_out = [all(map(item.get_closest_marker, ("cuda", "cpu_alone"))) for item in items]
    config.hook.pytest_deselected(items=list(compress(items, left_out)))
    items[:] = [item for item, out in zip(items, left_out, strict=True) if not out]


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Where the test computes. On a GPU, convolutions are as exact as on the CPU: TF32 is off."""
    if request.param == "cpu":
        yield torch.device("cpu")
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
        yield torch.device("cuda", 0)


@pytest.fixture(scope="session")
def tool() -> Callable[[str], ModuleType]:
    """Import a file of tools/ as a module, by its name: ``tool("train").main([...])``."""

    @functools.cache
    def load(name: str) -> ModuleType:
        path = Path(__file__).resolve().parents[1] / "tools" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"tools_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def rendered_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A rendered Cityscapes tree: 6 training and 5 validation frames of 64 x 128. Do not write to it."""
    from danseg.rendered.street_set import render

    root = tmp_path_factory.mktemp("rendered") / "cityscapes"
    render(root, train=6, val=5, height=64, width=128)
    return str(root)


# Memory tests put this code before their script, see `extra_peak`.
_PEAK_GROWTH = """
def peak_growth(run):
    open("/proc/self/clear_refs", "w").write("5")
    status = lambda key: int(open("/proc/self/status").read().split(key + ":")[1].split()[0]) * 1024
    before = status("VmRSS")
    kept = run()
    return status("VmHWM") - before
"""


@pytest.fixture(scope="session")
def extra_peak() -> Callable[..., int]:
    """Run a script with arguments and return the bytes it prints; it can call ``peak_growth(function)``."""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads peak memory from /proc")

    def run(script: str, *arguments: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", _PEAK_GROWTH + script, *arguments],
            # Larger blocks then return to the system as soon as they are freed. Otherwise the heap keeps
            # several megabytes, a different number each time.
            env=os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)},
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout.split()[-1])

    return run


@pytest.fixture(scope="session")
def official_scores() -> Callable[[Path, Path], dict]:
    """The scores that cityscapesscripts computes from a folder of predictions and a folder of labels."""
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")

    def scores(predictions: Path, labels: Path) -> dict:
        arguments = official.CArgs()
        arguments.__dict__.update(vars(official.args))
        arguments.predictionPath, arguments.predictionWalk = str(predictions), None
        arguments.evalInstLevelScore = arguments.JSONOutput = False
        arguments.quiet = True
        label_files = [str(path) for path in sorted(labels.rglob("*_gtFine_labelIds.png"))]
        prediction_files = [official.getPrediction(arguments, file) for file in label_files]
        return official.evaluateImgLists(prediction_files, label_files, arguments)

    return scores
