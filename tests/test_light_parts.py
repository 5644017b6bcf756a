"""Files, label maps, the renderer and the records of data sets work without torch and mmseg."""

import subprocess
import sys
from pathlib import Path

import danseg

FOLDER = Path(danseg.__file__).parent

_SCRIPT = """
import importlib, pkgutil, sys, types

# The package itself, whose __init__ registers with mmseg where that is installed, is left out.
package = types.ModuleType("danseg")
package.__path__ = [sys.argv[1]]
sys.modules["danseg"] = package
names = ["danseg.known_datasets", "danseg.dataset_file"]
for part in ("io", "label_maps", "rendered"):
    folder = importlib.import_module(f"danseg.{part}")
    names += [name for _, name, _ in pkgutil.iter_modules(folder.__path__, f"danseg.{part}.")]
for name in names:
    importlib.import_module(name)
from danseg.known_datasets import KNOWN_DATASETS

assert len(names) > 15 and [one.config("x", "val") for one in KNOWN_DATASETS.values()]
heavy = ("torch", "mmseg", "mmengine", "mmcv", "matplotlib")
print(*sorted(name for name in sys.modules if name.split(".")[0] in heavy))
"""


def test_nothing_heavy_is_imported():
    run = subprocess.run([sys.executable, "-c", _SCRIPT, str(FOLDER)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_a_training_starts_without_what_draws():
    code = "import sys, danseg.engine.train; print('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "False"
