"""``import danseg`` with and without mmseg: what it costs, and what is registered when."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import danseg
from danseg import mmcv_ops

# Makes the mm packages look uninstalled, whatever is installed.
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


@pytest.mark.slow
def test_the_package_hands_out_its_modules():
    run = _run(
        "import danseg\n"
        "assert issubclass(danseg.heads.DANetHead, danseg.heads.loss.UpsampledLoss) and danseg.io.__path__\n"
        "assert not hasattr(danseg, 'nonsense') and not hasattr(danseg, '_private')\n"
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_import_is_light():
    run = _run(
        "import sys, danseg\n"
        "heavy = {'mmcv', 'mmengine', 'mmseg', 'numpy', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import mmseg.registry\n"
        "heavy = {'mmseg.models', 'mmseg.datasets', 'danseg.registration', 'danseg.ops'} & set(sys.modules)\n"
        # mmseg's original line imports mmcv, and with it torch, wherever any of it is imported.
        "assert not heavy and ('torch' in sys.modules) == ('mmcv' in sys.modules), heavy\n"
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


# Programs that end with a registry, ``first``, and a ``name``, the first one to be looked up in it.
ORDERS = {
    "mmseg's registry": "import danseg\nfrom mmseg.registry import MODELS as first\nname = 'DANetHead'",
    "another one": "import danseg\nfrom mmseg.registry import TRANSFORMS as first\nname = 'LoadTrainingCrop'",
    "mmengine's": "import danseg\nfrom mmengine.registry import HOOKS as first\nname = 'RandomStateHook'",
    "danseg's": "from danseg.registry import MODELS as first\nname = 'DANetHead'",
    "by scope": "import danseg\nfrom mmengine.registry import MODELS as first\nname = 'mmseg.DANetHead'",
    "danseg's scope": "import danseg\nfrom mmseg.registry import MODELS as first\nname = 'danseg.NonLocal2d'",
    "mmseg first": "import mmseg.registry, danseg\n"
    "from mmengine.registry import OPTIM_WRAPPERS as first\nname = 'BFloat16OptimWrapper'",
    "heads first": "import danseg.heads\n"
    "from mmseg.registry import METRICS as first\nname = 'ExactIoUMetric'",
    "another mmengine": "import mmseg.registry\nfirst, name = mmseg.registry.MODELS, 'DANetHead'\n"
    "del first._locations\nimport danseg\nassert name in first.module_dict\nfirst._locations = []",
}


def _registered() -> dict[str, list[str]]:
    """The names that danseg has registered with mmseg and mmengine, by the registry's name."""
    import mmengine.registry
    import mmseg.registry

    kind = mmengine.registry.Registry
    return {
        f"{package.__name__}.{name}": sorted(
            key for key, value in registry.module_dict.items() if value.__module__.startswith("danseg.")
        )
        for package in (mmseg.registry, mmengine.registry)
        for name, registry in vars(package).items()
        if isinstance(registry, kind)
    }


@pytest.mark.slow
def test_registration_imports_every_file_that_registers():
    package = Path(danseg.__file__).parent
    files = [path for path in package.rglob("*.py") if ".register_module(" in path.read_text()]
    names = {".".join(path.relative_to(package.parent).with_suffix("").parts) for path in files}
    assert len(names) > 10 and "danseg.drop_in" in names
    run = _run("import sys, danseg.registration\nprint(*sys.modules)")
    assert names - set(run.stdout.split()) == {"danseg.drop_in"}  # which takes mmseg's names, where asked


@pytest.fixture(scope="module")
def first_lookups() -> dict[str, subprocess.CompletedProcess]:
    """What each of the programs prints, in a process of its own; two run at a time, to wait half as long."""
    ending = "\nassert first.get(name).__module__.startswith('danseg.') and name in first\n"
    ending += f"{inspect.getsource(_registered)}\nprint(_registered())"
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(ORDERS, pool.map(lambda order: _run(order + ending), ORDERS.values()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_the_first_lookup_finds_everything_and_says_nothing(order, first_lookups):
    importlib.import_module("danseg.registration")
    want = _registered()
    assert {"DANetHead", "CBAM"} < set(want["mmseg.registry.MODELS"])
    assert {"RandomStateHook"} <= set(want["mmengine.registry.HOOKS"])
    run = first_lookups[order]
    assert (run.returncode, run.stderr) == (0, "")
    assert ast.literal_eval(run.stdout) == want


@pytest.mark.slow
def test_a_registry_that_was_filled_before_gets_everything_at_once():
    if sys.modules.get("mmcv.ops") is mmcv_ops:
        pytest.skip("this line of mmseg cannot be filled without danseg")
    run = _run(
        "from mmseg.registry import DATASETS, MODELS\n"
        "MODELS.get('FCNHead')\n"
        "import danseg\n"
        "assert 'DANetHead' in MODELS.module_dict and 'CamVidDataset' in DATASETS.module_dict\n"
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_a_config_names_it_and_a_spawned_process_gets_it(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        "custom_imports = dict(imports=['danseg'])\n"
        "default_scope = 'mmseg'\n"
        "hook = dict(type='RandomStateHook')\n"
        "crop = dict(type='LoadTrainingCrop', scale=(16, 8), crop_size=8)\n"
        "dataset = dict(type='CamVidDataset', lazy_init=True, pipeline=[crop])\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "if __name__ == '__main__':\n"
        "    from mmengine.config import Config\n"
        "    from mmengine.registry import DATASETS, HOOKS, init_default_scope\n"
        f"    config = Config.fromfile({str(config)!r})\n"
        "    init_default_scope(config.default_scope)\n"
        "    HOOKS.build(config.hook)\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(repr, (DATASETS.build(config.dataset).pipeline.transforms,)))\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert re.fullmatch(r"\[LoadTrainingCrop\(.*\)\]\n", run.stdout)
