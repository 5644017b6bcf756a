"""What README.md says is run: own pictures, Cityscapes, its programs; on drawn sets, for few iterations."""

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import own_sets
from danseg.command import main
from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.label_maps.label_png import read_label_map
from documents import ROOT, blocks, shell_lines
from reader import SMALL, TRIAL, at_home

PAGE = ROOT / "README.md"
LINES = [line for line in shell_lines(PAGE) if line.startswith("danseg ")]
# Of the published data sets; each needs those before it.
PUBLISHED = [line for line in shell_lines(PAGE) if line.startswith("python ")]
# The one thing in which the test differs from the page: how long it trains, and how often it measures.
SHORT = ["--seed", "0", "--cfg-options", "max_iters=40", "train_cfg.val_interval=20", "num_workers=0"]

pytestmark = pytest.mark.slow


@pytest.fixture
def reader(tmp_path) -> Iterator[Path]:
    """The folder of a reader who has pictures and masks under the page's names, and is in it."""
    folder = tmp_path
    own_sets.ids_set(folder / "street", 15)
    shutil.copytree(folder / "street" / "images", folder / "new" / "pictures")
    shutil.copy(next((folder / "street" / "images").glob("000.*")), folder / "street.png")
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


def explored(said: str) -> None:
    assert "decode_head.pam" in said and Path("attention.pdf").read_bytes().startswith(b"%PDF")


def exported(said: str) -> None:
    assert "any number of pictures of any size" in said and Path("street.onnx").is_file()


def predicted_by_the_file(said: str) -> None:
    names = [f"{index:03}_labels.png" for index in range(15)]
    folders = [Path("pictures"), Path("pictures_of_file")]
    labels, of_file = (np.stack([read_label_map(folder / name) for name in names]) for folder in folders)
    assert (of_file == labels).mean() >= 0.9999


def published(said: str) -> None:
    [path] = Path().glob("street-*.safetensors")
    assert path.name in said and path.with_suffix(".md").is_file()


# What has to be true after each line of the page, by how the line begins.
OUTCOMES = [
    ("danseg prepare folder", prepared),
    ("danseg train", trained),
    ("danseg test", scored),
    ("danseg predict danet_r18_folder", predicted),
    ("danseg explore", explored),
    ("danseg export", exported),
    ("danseg predict street.onnx", predicted_by_the_file),
    ("danseg publish", published),
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
    exec(segmenter, names := {})
    labels = read_label_map(Path("pictures/000_labels.png"))
    assert (names["prediction"].labels == labels).mean() > 0.999
    assert names["prediction"].areas()["road"].share == pytest.approx((labels == 0).mean(), abs=0.01)
    names = {"features": rand(2, 512, 7, 9)}
    exec(module, names)
    assert names["features"].shape == (2, 512, 7, 9)


def test_the_lines_for_cityscapes(tool, rendered_root, tmp_path, monkeypatch, capsys):
    """A training that ends half-way goes on to the bit, is tested and scored, with one and the same mIoU."""
    monkeypatch.chdir(at_home(tmp_path, rendered_root))
    programs = ["train.py", "train.py", "test.py", "evaluate.py"]
    assert [shlex.split(line)[1] for line in PUBLISHED] == [f"tools/{name}" for name in programs]
    work = Path("work_dirs/danet_r101_cityscapes")
    last = work / "iter_4.pth"

    def run(line: str, *more: str) -> str:
        _, program, *words = shlex.split(line)
        words = [str(last) if word == "CHECKPOINT" else word for word in words]
        tool(Path(program).stem).main([*words, *more])
        return capsys.readouterr().out

    train, resume, test, evaluate = PUBLISHED
    run(train, *TRIAL)
    weights = read_checkpoint(last)["state_dict"]
    for path in (last, *work.glob("best_*.pth")):  # as if it had been killed before its end
        path.unlink()
    assert "iter_2.pth" in run(resume, *TRIAL)
    again = read_checkpoint(last)["state_dict"]
    assert weights.keys() == again.keys() and all((weights[name] == again[name]).all() for name in weights)
    assert "averaged over 4 views" in run(test, "--cfg-options", *SMALL)
    frames = Path("data/cityscapes/leftImg8bit/val").rglob("*.png")
    names = {frame.name.replace("leftImg8bit", "pred_labelIds") for frame in frames}
    assert names == {path.name for path in Path("predictions").iterdir()}
    run(evaluate)
    [tested] = work.glob("metrics_*.json")
    scored = json.loads(Path("predictions_scores.json").read_text())
    assert scored["mIoU"] == json.loads(tested.read_text())["mIoU"] > 0
