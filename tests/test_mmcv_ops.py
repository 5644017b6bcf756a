"""The stand-in for mmcv.ops: when it is used, when it is not, and what its functions compute."""

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

from danseg import mmcv_ops

NEEDS_OPS = "from mmcv.ops import point_sample\n"
GUARDS = "try:\n    from mmcv.ops import point_sample\nexcept ModuleNotFoundError:\n    point_sample = None\n"
NOT_COMPILED = "import importlib\nimportlib.import_module('mmcv._ext')\n"


def _mm_packages() -> list[str]:
    return [name for name in sys.modules if name.split(".")[0] in ("mmcv", "mmseg")]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """Install the stand-in next to a fake mmcv and mmseg; return the fake mmseg.utils."""
    kept = {name: sys.modules.pop(name) for name in _mm_packages()}
    monkeypatch.syspath_prepend(tmp_path)

    def run(ops: str | None, utils: str):
        files = {"mmcv/__init__.py": "", "mmseg/__init__.py": "", "mmseg/utils.py": utils}
        if ops is not None:
            files["mmcv/ops/__init__.py"] = ops
        for name, code in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(code)
        mmcv_ops.install()
        return importlib.import_module("mmseg.utils")

    yield run
    for name in _mm_packages():
        del sys.modules[name]
    sys.modules.update(kept)


@pytest.mark.parametrize("ops", [NOT_COMPILED, None], ids=["not compiled", "no package"])
def test_it_steps_in_where_mmseg_needs_operators_that_are_not_there(install, ops):
    assert install(ops, NEEDS_OPS).point_sample is mmcv_ops.point_sample
    import mmcv.ops

    assert mmcv.ops is mmcv_ops


def test_real_operators_stay(install):
    assert install("point_sample = 'real'", NEEDS_OPS).point_sample == "real"
    assert sys.modules["mmcv.ops"] is not mmcv_ops


def test_an_mmseg_that_guards_its_imports_keeps_knowing_that_there_are_none(install):
    assert install(NOT_COMPILED, GUARDS).point_sample is None
    assert "mmcv.ops" not in sys.modules


def test_another_missing_package_is_not_hidden(install):
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        install(NOT_COMPILED, "import a_package_that_is_missing")
    assert "mmcv.ops" not in sys.modules


def test_only_the_original_line_gets_it():
    try:
        original = version("mmsegmentation")
    except PackageNotFoundError:
        original = None
    assert (sys.modules.get("mmcv.ops") is mmcv_ops) == (original is not None)


def test_other_operators_are_missing_as_without_it():
    with pytest.raises(ModuleNotFoundError, match="CCNetHead and PSANetHead"):
        from danseg.mmcv_ops import PSAMask  # noqa: F401
    assert not hasattr(mmcv_ops, "__path__")  # Python asks every module for names like this


@pytest.mark.parametrize("align_corners", [False, True])
def test_point_sample_weighs_the_four_nearest_pixels(align_corners, device):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 5, 7, dtype=torch.float64, generator=generator)
    points = torch.rand(2, 11, 2, dtype=torch.float64, generator=generator)
    points[:, 0], points[:, 1] = 0, 1
    want = torch.zeros(2, 3, 11, dtype=torch.float64)
    for b in range(2):
        for p, (x, y) in enumerate(points[b].tolist()):
            column, row = (x * 6, y * 4) if align_corners else (x * 7 - 0.5, y * 5 - 0.5)
            for i in range(5):
                for j in range(7):
                    weight = max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
                    want[b, :, p] += weight * features[b, :, i, j]
    features, points, want = features.to(device), points.to(device), want.to(device)
    torch.testing.assert_close(mmcv_ops.point_sample(features, points, align_corners), want)
    grid = points[:, :10].reshape(2, 2, 5, 2)
    got = mmcv_ops.point_sample(features, grid, align_corners=align_corners)
    torch.testing.assert_close(got, want[:, :, :10].reshape(2, 3, 2, 5))


def test_sigmoid_focal_loss(device):
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 3, 1, 2, 4, 0])  # the fifth belongs to no class
    loss = mmcv_ops.sigmoid_focal_loss(logits.to(device), target.to(device), 2.5, 0.3, None, "none")
    for n in range(6):
        for c in range(4):
            p = 1 / (1 + math.exp(-logits[n, c]))
            is_target = target[n] == c
            want = -0.3 * (1 - p) ** 2.5 * math.log(p) if is_target else -0.7 * p**2.5 * math.log(1 - p)
            assert loss[n, c].item() == pytest.approx(want, rel=1e-12)
    with pytest.raises(NotImplementedError, match="reduction='mean'"):
        mmcv_ops.sigmoid_focal_loss(logits, target, 2.5, 0.3, None, "mean")
