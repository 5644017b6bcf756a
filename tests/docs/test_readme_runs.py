"""What README.md says of own pictures is run, on a drawn set, for few iterations; so are its programs."""

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import own_sets
from danseg.command import main
from danseg.label_maps.label_png import read_label_map
from documents import ROOT, blocks, shell_lines

PAGE = ROOT / "README.md"
LINES = [line for line in shell_lines(PAGE) if line.startswith("danseg ")]
# The one thing in which the test differs from the page: how long it trains, and how often it measures.
SHORT = ["--seed", "0", "--cfg-options", "max_iters=40", "train_cfg.val_interval=20", "num_workers=0"]

pytestmark = pytest.mark.slow


@pytest.fixture
def reader(tmp_path) -> Iterator[Path]:
    """The folder of a reader who has pictures and masks under the page's names, and is in it."""
    folder = tmp_path
    own_sets.ids_set(folder / "street", 15)
    shutil.copytree(folder / "street" / "images", folder / "new" / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


def run(line: str) -> None:
    words = shlex.split(line)
    trained = Path("work_dirs/danet_r18_folder/last_checkpoint")
    words = [trained.read_text().strip() if word == "CHECKPOINT" else word for word in words]
    main([*words[1:], *(SHORT if words[1] == "train" else [])])


def prepared(said: str) -> None:
    assert "15 images with masks of ids" in said and Path("data/street/dataset.yaml").is_file()


def trained(said: str) -> None:
    assert "best checkpoint" in said and Path("work_dirs/danet_r18_folder/iter_40.pth").is_file()


def scored(said: str) -> None:
    last = json.loads(Path("work_dirs/danet_r18_folder/validations.json").read_text())[-1]
    assert f"mIoU {last['mIoU']:.2f}" in said


def predicted(said: str) -> None:
    assert "15 of 15 predicted now" in said and len(list(Path("pictures").glob("*_overlay.png"))) == 15


# What has to be true after each line of the page, by how the line begins.
OUTCOMES = [
    ("danseg prepare folder", prepared),
    ("danseg train", trained),
    ("danseg test", scored),
    ("danseg predict", predicted),
]


def test_every_line_is_one_that_is_run():
    assert len(LINES) == len(OUTCOMES)
    assert all(line.startswith(begins) for line, (begins, _) in zip(LINES, OUTCOMES, strict=True))


def test_every_line_and_the_programs(reader, capfd):
    """In one test: each line needs those before it, and tests of a file may run in different processes."""
    from torch import rand

    for line, (_, holds) in zip(LINES, OUTCOMES, strict=True):
        run(line)
        holds("".join(capfd.readouterr()))
    segmenter, module = [text for language, text in blocks(PAGE) if language == "python"]
    Path("best.pth").write_bytes(Path("work_dirs/danet_r18_folder/iter_40.pth").read_bytes())
    shutil.copy(next(Path("street/images").glob("000.*")), "street.png")
    exec(segmenter, names := {})
    labels = read_label_map(Path("pictures/000_labels.png"))
    assert (names["prediction"].labels == labels).mean() > 0.999
    assert names["prediction"].areas()["road"].share == pytest.approx((labels == 0).mean(), abs=0.01)
    names = {"features": rand(2, 512, 7, 9)}
    exec(module, names)
    assert names["features"].shape == (2, 512, 7, 9)
