"""``import danseg`` with and without mmseg: what it registers, and what it does without."""

import subprocess
import sys

# Makes the mm packages look uninstalled, whatever lies in site-packages.
_HIDE = """
import importlib.machinery, sys
class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] in ("mmcv", "mmengine", "mmseg"):
            return None
        return super().find_spec(name, path, target)
sys.meta_path = [Finder if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
"""


def _run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_modules_work_without_the_mm_packages_and_say_nothing():
    run = _run(
        _HIDE + "import torch, danseg\n"
        "from danseg.attention import DualAttention\n"
        "assert DualAttention(8)(torch.randn(1, 8, 3, 4)).shape == (1, 8, 3, 4)\n"
        "assert not any(m.startswith(('mmcv', 'mmseg', 'mmengine')) for m in sys.modules)\n"
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_heads_without_mmseg_name_the_command_that_installs_it():
    run = _run(_HIDE + "import danseg.heads\n")
    assert run.returncode != 0
    assert "pip install 'danseg[onedl]'" in run.stderr


def test_import_registers_with_mmseg_and_says_nothing():
    run = _run(
        "import danseg\n"
        "from mmseg.registry import DATASETS, METRICS, MODELS\n"
        "assert MODELS.get('DANetHead') and DATASETS.get('CamVidDataset') and METRICS.get('ExactIoUMetric')\n"
    )
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
