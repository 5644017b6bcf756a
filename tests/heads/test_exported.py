"""Every head leaves PyTorch in every format, for any size, and the files need nothing but their runtime."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import exported_files
from child_process import environment
from drawn_head import HEADS, build
from exported import QUICK, SLOW, differences
from small_head import COMMON


def network(name: str) -> nn.Module:
    return exported_files.OneInput(build(name)).eval()


def feature_map(batch: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, COMMON["in_channels"], *size, generator=generator)


@pytest.mark.parametrize("name", sorted(HEADS))
@pytest.mark.parametrize("forms", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=str)
def test_files_compute_what_the_head_does_at_any_size(name, forms, tmp_path):
    found = differences(network(name), feature_map, forms, tmp_path)
    assert not {case: one for case, one in found.items() if one > 1e-4}


#: Runs files where danseg and what it stands on cannot be imported, and writes what they give.
ELSEWHERE = """
import sys
for name in ("danseg", "mmseg", "mmengine", "mmcv"):
    sys.modules[name] = None
import numpy as np
*paths, inputs, outputs = sys.argv[1:]
x = np.load(inputs)
found = []
for path in paths:
    if path.endswith(".onnx"):
        import onnxruntime
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        [one] = session.run(None, {session.get_inputs()[0].name: x})
    else:
        import torch
        file = torch.export.load(path).module() if path.endswith(".pt2") else torch.jit.load(path)
        one = file(torch.from_numpy(x)).detach().numpy()
    found.append(one)
np.savez(outputs, *found)
"""


@pytest.mark.slow
def test_files_run_where_danseg_is_not_installed(tmp_path):
    names = ["DANetHead", "CCNetHead", "PSANetHead"]  # operators with loops, and one without
    example, x = feature_map(2, (6, 10)), feature_map(1, (17, 23))
    paths, wanted = [], []
    for name in names:
        head = network(name)
        for form in exported_files.FORMATS:
            paths.append(exported_files.write(form, head, example, tmp_path / f"{name} {form}", (0, 2, 3)))
            wanted.append(head(x).detach())
    np.save(tmp_path / "x.npy", x.numpy())
    arguments = [*map(str, paths), str(tmp_path / "x.npy"), str(tmp_path / "y.npz")]
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *arguments],
        env=environment(),
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
    found = np.load(tmp_path / "y.npz")
    assert len(paths) == len(found) == len(names) * len(exported_files.FORMATS)
    for path, one, want in zip(paths, found.values(), wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), want, rtol=1e-4, atol=1e-4, msg=path.name)
