"""The wheel alone, outside the clone: what it holds, and that its command works; an editable install too."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import own_sets
from danseg.io.files import make_folder

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("danseg", "configs", "tools", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
SHIPPED = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("configs", "tools")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)

# What build frontends such as pip call, without their search for build requirements.
BUILD = """
from setuptools import build_meta
for kind in ("wheel", "editable", "sdist"):
    getattr(build_meta, f"build_{kind}")(f"../{kind}")
"""

pytestmark = pytest.mark.slow


def run(*arguments: str | Path, cwd: Path, found: Path | None = None) -> subprocess.CompletedProcess:
    """Run Python in a folder; of danseg, it finds what lies in ``found`` and never this clone."""
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    paths = [*([found] if found else []), *(path for path in others if Path(path).resolve() != ROOT)]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with a copy of the clone, as ``source``, and what is built from it: wheel, editable, sdist."""
    top = tmp_path_factory.mktemp("built")
    source = make_folder(top / "source")
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".mim"))
        else:
            shutil.copy(ROOT / name, source)
    # What an earlier build left is not what this clone has.
    stale = make_folder(source / "build" / "lib" / "danseg" / ".mim" / "configs") / "stale_r50_demo.py"
    stale.write_text("")
    for kind in ("wheel", "editable", "sdist"):
        make_folder(top / kind)
    run("-c", BUILD, cwd=source)
    return top


def only(folder: Path) -> Path:
    [file] = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def installed(built) -> Path:
    """A folder into which pip has installed the wheel."""
    target = built / "target"
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--target", str(target))
    run("-m", "pip", "install", *options, str(only(built / "wheel")), cwd=built)
    return target


def test_the_wheel_holds_every_config_and_tool_and_nothing_else_beside_the_package(built):
    with zipfile.ZipFile(only(built / "wheel")) as wheel:
        names = wheel.namelist()
        for name in SHIPPED:
            assert wheel.read(f"danseg/.mim/{name}") == (ROOT / name).read_bytes(), name
    mim = {name.removeprefix("danseg/.mim/") for name in names if name.startswith("danseg/.mim/")}
    assert mim == {*SHIPPED, "model-index.yml", "metafile.yml"} and len(SHIPPED) > 90
    files = [*(ROOT / "danseg").rglob("*.py"), *(ROOT / "danseg" / "app" / "assets").iterdir()]
    code = {path.relative_to(ROOT).as_posix() for path in files}
    rest = {name for name in names if not name.startswith("danseg/.mim/") and ".dist-info/" not in name}
    assert rest == {name for name in code if "/.mim/" not in name}


def test_the_index_is_what_the_mm_family_reads(installed):
    from mmengine.config.utils import _get_cfg_metainfo

    found = _get_cfg_metainfo(str(installed / "danseg"), "danet_r101_cityscapes.py")
    assert found["Results"][0]["Metrics"]["mIoU"] == 80.47
    assert (installed / "danseg" / ".mim" / found["Config"]).is_file()


def test_a_wheel_can_be_built_from_the_source_distribution(built):
    with tarfile.open(only(built / "sdist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*SHIPPED, "setup.py", "danseg/recipes.py", "danseg/app/assets/viewer.js", "README.md"} <= names
    assert not [name for name in names if name.startswith(("tests", "data", "danseg/.mim"))]


def test_the_script_is_installed(installed, tmp_path):
    version = run(installed / "bin" / "danseg", "--version", cwd=tmp_path, found=installed).stdout
    assert version == run("-m", "danseg", "--version", cwd=tmp_path, found=installed).stdout
    listed = run("-m", "danseg", "configs", cwd=tmp_path, found=installed).stdout
    leaves = {
        name.removeprefix("configs/")[:-3] for name in SHIPPED if name.count("/") == 1 and "configs/" in name
    }
    assert {line.split()[0] for line in listed.splitlines()[1:]} == leaves


# In one process, because importing mmseg takes longer than all that is done here.
USE = """
import glob, json, sys
import danseg
from danseg.command import main

def danseg_(*arguments):
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code, (arguments, end.code)

sizes = ("--train", "4", "--val", "2", "--height", "64", "--width", "128")
few = ("--cfg-options", "max_iters=3", "train_dataloader.batch_size=2", "train_dataloader.num_workers=0",
       "val_dataloader.num_workers=0", "test_dataloader.num_workers=0")
danseg_("doctor")
danseg_("prepare", "demo", *sizes)
danseg_("train", "danet_r18_demo", "--seed", "0", *few)
checkpoint = "work_dirs/danet_r18_demo/iter_3.pth"
danseg_("test", "danet_r18_demo", checkpoint, "--out", "predictions", "--work-dir", "tested", *few)
danseg_("evaluate", "predictions", "data/demo/gtFine/val", "--dataset", "demo")
frames = glob.glob("data/demo/leftImg8bit/val/*/*.png")
danseg_("predict", "danet_r18_demo", checkpoint, *frames, "--out", "pictures")

danseg_("prepare", "folder", "own/images", "own/masks", "--out", "data/mine", "--classes", "ground,disc,box")
danseg_("train", "danet_r18_folder", "--data", "data/mine", "--seed", "0", "--cfg-options", "max_iters=3",
        "num_workers=0", "crop_size=(64,64)")
[best] = glob.glob("work_dirs/danet_r18_folder/best_mIoU_*.pth")
danseg_("test", "danet_r18_folder", best, "--data", "data/mine", "--work-dir", "tested")
danseg_("predict", "danet_r18_folder", best, "own/images", "--data", "data/mine", "--out", "mine/by_name")
# Alone, the training's own config needs neither --data nor danseg's configs.
written = "work_dirs/danet_r18_folder/danet_r18_folder.py"
danseg_("predict", written, best, "own/images", "--out", "mine/by_file")

with open("mine.py", "w") as mine:
    mine.write('_base_ = "danseg::danet_r18_demo.py"\\ndata_root = "nowhere"\\nmax_iters = 5\\n')
try:
    main(["check", "mine"])
except SystemExit as end:
    assert end.code == 1

# On its original line, mmengine asks the packages of a module that setuptools has no more.
from importlib.util import find_spec
if find_spec("pkg_resources") or "onedl" in sys.argv[1]:
    from mmengine.config import Config
    from mmengine.hub import get_config, get_model
    from mmseg.registry import DATASETS, MODELS
    assert get_config("danseg::_base_/recipes/demo.py").num_classes == 19
    print("built:", type(get_model("danseg::_base_/../danet_r18_demo.py")).__name__)
    with open("theirs.py", "w") as theirs:
        theirs.write('_base_ = "danseg::_base_/../danet_r18_demo.py"')
    config = Config.fromfile("theirs.py")
    MODELS.build(config.model), DATASETS.build(dict(config.train_dataloader.dataset, lazy_init=True))

from danseg.engine.config.config_file import load_config
theirs = {name: module.__file__ for name, module in sys.modules.items() if name.startswith("danseg")}
with open("found.json", "w") as found:
    json.dump({"files": theirs, "iterations": load_config("mine").train_cfg.max_iters}, found)
"""


def test_train_test_and_predict_outside_the_clone(installed, tmp_path):
    line = importlib.metadata.packages_distributions()["mmseg"][0]
    true = own_sets.ids_set(tmp_path / "own", 8)
    done = run("-c", USE, line, cwd=tmp_path, found=installed)
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["files"]) > 100
    assert not [name for name, file in found["files"].items() if not file.startswith(str(installed))]
    assert found["iterations"] == 5
    assert "built: LeanEncoderDecoder" in done.stdout or "onedl" not in line
    assert "Failed to search registry" not in done.stdout + done.stderr
    assert "a wheel, in" in done.stdout and "mIoU" in done.stdout
    assert len(list((tmp_path / "predictions").rglob("*.png"))) == 2
    assert len(list((tmp_path / "pictures").glob("*_labels.png"))) == 2
    for way in ("by_name", "by_file"):
        written = (tmp_path / "mine" / way).glob("*_labels.png")
        assert {path.name.removesuffix("_labels.png") for path in written} == true.keys()
    assert "danseg train danet_r18_folder --data data/mine\n" in done.stdout
    assert len(list((tmp_path / "tested").glob("metrics_*.json"))) == 2  # of the demo, of the own set
    assert re.search(r"Prepare it with: danseg prepare demo \S*nowhere\n", done.stderr)
    said = (done.stdout + done.stderr).replace(sys.prefix, "")  # the environment may lie in the clone
    assert "tools/" not in said and str(ROOT) not in said


EDITABLE = """
import site, sys
site.addsitedir(sys.argv[1])
import danseg
from danseg.shipped import shipped
print(danseg.__file__, shipped("configs"), shipped("tools"))
from danseg.command import main
main(["configs", "danet_r101_cityscapes"])
"""


def test_an_editable_install_links_to_the_clone(built, tmp_path):
    target, source = make_folder(tmp_path / "target"), built / "source"
    with zipfile.ZipFile(only(built / "editable")) as wheel:
        wheel.extractall(target)
    mim = source / "danseg" / ".mim"
    assert (mim / "configs").resolve() == source / "configs" and (mim / "tools" / "train.py").is_file()
    assert json.loads((mim / "metafile.yml").read_text())["Models"]
    # -S: danseg is installed in this environment too, which comes first otherwise.
    files, *shown = run("-S", "-c", EDITABLE, target, cwd=tmp_path).stdout.splitlines()
    assert files.split() == [
        str(source / "danseg/__init__.py"),
        str(source / "configs"),
        str(source / "tools"),
    ]
    assert any("80.47" in line for line in shown)
