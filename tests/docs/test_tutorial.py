"""Every block of docs/tutorial.md is run in order in one folder, as a reader would, and does what it says."""

import glob
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from PIL import Image

import own_sets
from danseg.command import main
from danseg.label_maps.label_png import read_label_map
from documents import ROOT, blocks, shell_lines

PAGE = ROOT / "docs" / "tutorial.md"
COMMANDS = [line for line in shell_lines(PAGE) if line]
PYTHON = [text for language, text in blocks(PAGE) if language == "python"]
IMAGES = 15
WORK = Path("work_dirs/danet_r18_folder")

# The one thing in which the test differs from the page: how long it trains, and how often it measures.
SHORTER = {
    "train": ["--seed", "0", "--cfg-options", "max_iters=40", "train_cfg.val_interval=20", "num_workers=0"],
    "latency": ["--repeat", "2"],
}

pytestmark = pytest.mark.slow


def run(line: str) -> None:
    """Run a line of the page in this process, with patterns expanded as by a shell."""
    words = [one for word in shlex.split(line) for one in (sorted(glob.glob(word)) or [word])]
    if words[0] == "cp":
        _, source, target = words
        shutil.copy(source, target)
        return
    assert words[0] == "danseg"
    main([*words[1:], *SHORTER.get(words[1], [])])


@pytest.fixture
def reader(tmp_path) -> Iterator[Path]:
    """The folder of a reader who has pictures and masks under the page's names, and is in it."""
    folder = tmp_path
    own_sets.ids_set(folder, IMAGES)
    (folder / "images").rename(folder / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


def prepared(said: str) -> None:
    written = yaml.safe_load(Path("data/mine/dataset.yaml").read_text())
    assert written["names"] == list(own_sets.NAMES) and written["ignore"] == [255]
    assert f"{IMAGES} images with masks of ids" in said and "split: 12 train, 3 val" in said
    assert "danseg train danet_r18_folder --data data/mine" in said


def browsed(said: str) -> None:
    assert Path("sheet.png").stat().st_size > 10_000 and "| disc" in said


def trained(said: str) -> None:
    assert "crop_size = (96, 128)" in said and "eta: " in said and "best checkpoint" in said
    assert len(list(WORK.glob("best_mIoU_*.pth"))) == 1 and said.count("\nmIoU ") == 2


def named(said: str) -> None:
    [best] = WORK.glob("best_mIoU_*.pth")
    assert Path("best.pth").read_bytes() == best.read_bytes()


def scored(said: str) -> None:
    [file] = WORK.glob("metrics_*.json")
    best = max(one["mIoU"] for one in json.loads((WORK / "validations.json").read_text()))
    assert json.loads(file.read_text())["mIoU"] == best > 60  # it has learnt something
    assert f"mIoU {best:.2f}" in said


def analysed(said: str) -> None:
    assert (
        "worst_01.png" in Path("analysis/report.md").read_text() and Path("analysis/worst_01.png").is_file()
    )


def predicted(said: str) -> None:
    assert f"{IMAGES} of {IMAGES} predicted now" in said
    assert len(list(Path("predicted").glob("*_overlay.png"))) == IMAGES
    labels, true = (read_label_map(Path(name)) for name in ("predicted/000_labels.png", "masks/000.png"))
    assert (labels == true)[true != 255].mean() > 0.8


def attention_drawn(said: str) -> None:
    assert list(Path("attention").glob("000_attention_*.png"))


def measured(said: str) -> None:
    assert "96x128, batch 1" in said and "images a second" in said


def exported(said: str) -> None:
    assert "takes (B, H, W, C) uint8, gives labels" in said and "written: best.onnx" in said
    # As a reader would run it who has ONNX Runtime alone.
    picture = np.asarray(Image.open("pictures/000.jpg").convert("RGB"))
    [labels] = onnxruntime.InferenceSession("best.onnx").run(None, {"image": picture[None]})
    predicted = read_label_map(Path("predicted/000_labels.png"))
    assert labels.shape == (1, *picture.shape[:2]) and (labels[0] == predicted).mean() > 0.999


# What has to be true after each line of the page, by how the line begins.
OUTCOMES = {
    "danseg prepare folder": prepared,
    "danseg browse": browsed,
    "danseg train": trained,
    "cp ": named,
    "danseg test": scored,
    "danseg analyze": analysed,
    f"danseg predict {WORK}/danet_r18_folder.py best.pth pictures --out": predicted,
    f"danseg predict {WORK}/danet_r18_folder.py best.pth pictures/000.jpg": attention_drawn,
    "danseg latency": measured,
    "danseg export": exported,
}


def test_every_block_is_one_that_is_run():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(blocks(PAGE)) == 2 * (len(COMMANDS) + len(PYTHON))
    assert len(PYTHON) == 1 and len(COMMANDS) == len(OUTCOMES)
    for line, begins in zip(COMMANDS, OUTCOMES, strict=True):
        assert line.startswith(begins)


def test_every_line_and_the_program(reader, capfd):
    """In one test: each line needs those before it, and tests of a file may run in different processes."""
    for line, holds in zip(COMMANDS, OUTCOMES.values(), strict=True):
        run(line)
        holds("".join(capfd.readouterr()))
    exec(PYTHON[0], names := {})
    said = dict(re.findall(r"^(\w+): ([\d.]+)% of the picture$", capfd.readouterr().out, re.MULTILINE))
    labels = read_label_map(Path("predicted/000_labels.png"))
    shares = np.bincount(labels.ravel(), minlength=3) / labels.size * 100
    assert list(said) == list(own_sets.NAMES)
    np.testing.assert_allclose([float(share) for share in said.values()], shares, atol=0.051)
    np.testing.assert_array_equal(names["prediction"].labels, labels)
