"""The commands of all pages are run, as a reader would, one page after another: on small sets and networks.

What a page says of the commands' results is for the tests of the programs. Here each runs without an error
and leaves what it was asked for. README.md, the tutorial, the recipes and the notebook have tests of their
own, which look closer.
"""

import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

import own_sets
from danseg.apis import latency
from danseg.shipped import tools
from documents import DOCUMENTS, ROOT, shell_lines
from reader import LENGTH, SMALL, Tool, at_home, checkpoint

# Pages with a test of their own.
ELSEWHERE = {
    "README.md": "test_readme_runs.py",
    "README.zh-CN.md": "test_readme_zh.py",  # equal to README.md's
    "docs/tutorial.md": "test_tutorial.py",
    "docs/own_data.md": "test_prepare_dataset.py",
    "docs/recipes.md": "test_recipes_page.py",
    "docs/weights.md": "test_convert.py",  # which runs on files in the layouts of other projects
}
# Programs that end by themselves and need nothing but a set and weights.
PROGRAMS = (
    "analyze attention_statistics browse check_dataset configs doctor evaluate explore latency predict "
    "prepare_dataset test train"
)
CAMERA = "CONFIG CHECKPOINT 0 "
# What a page takes for granted.
BEFORE = {
    "analysis.md": [f"python tools/train.py configs/{name}_r18_camvid.py" for name in ("danet", "fcn")],
    "runtimes.md": [
        "danseg export danet_r101_cityscapes CHECKPOINT --format onnx --dynamic --out danet.onnx",
    ],
    "testing.md": ["python tools/test.py configs/danet_r101_cityscapes.py CHECKPOINT --out predictions"],
}


def parsed(line: str) -> tuple[str, list[str]]:
    """The program of a line (its file's name; empty if it is none of one process) and its arguments."""
    if found := re.match(r"(?:python tools/(\w+)\.py|danseg ([a-z-]+))(?= |$)", line):
        name = found[1] or tools().get(found[2], Path(found[2])).stem
        return name, shlex.split(line[found.end() :].partition(" # ")[0])
    return "", []


def commands(page: Path) -> list[str]:
    known = PROGRAMS.split()
    return [line for line in shell_lines(page) if parsed(line)[0] in known and CAMERA not in line]


COMMANDS = {page: commands(page) for page in DOCUMENTS if page.relative_to(ROOT).as_posix() not in ELSEWHERE}

pytestmark = pytest.mark.slow


def rest_of(options: Sequence[str], words: Sequence[str]) -> list[str]:
    """``--cfg-options`` for what a line does not set itself."""
    given = {word.partition("=")[0] for word in words}
    return ["--cfg-options", *(one for one in options if one.partition("=")[0] not in given)]


def run(line: str, tool: Tool) -> None:
    """Run a line; the checkpoint that it names is made before. No training takes hundreds of iterations."""
    name, words = parsed(re.sub(r"max_iters=\d{3,}", "max_iters=4", line))
    known = dict(CONFIG="configs/danet_r18_demo.py", CHECKPOINT="weights.pth")
    words = [known.get(word, word).replace("=/data/", "=data/") for word in words]
    of_config = (
        bool(words) and (ROOT / "configs" / f"{Path(words[0]).stem}.py").is_file() and name != "configs"
    )
    more = rest_of(SMALL, words) if of_config else []
    if of_config and words[1:] and words[1].endswith(".pth"):
        checkpoint(words[0], words[1])
    if name == "train":
        more = ["--seed", "0", *rest_of((*SMALL, *LENGTH), words)]
    elif name == "latency":
        more += ["--repeat", "1", "--size", "32", "64", "--batch", "1"]
    elif name == "prepare_dataset" and words[0] == "demo":
        more = ["--train", "2", "--val", "2", "--height", "64", "--width", "128"]
    tool(name).main([*words, *more])
    if "--out" in words:
        out = Path(words[words.index("--out") + 1])
        assert out.is_file() or any(out.iterdir()), f"{line} leaves nothing"
    if name == "train":
        last = Path("work_dirs", Path(words[0]).stem, "last_checkpoint")
        assert Path(last.read_text()).is_file(), f"{line} leaves no checkpoint"


def camvid(root: Path) -> Path:
    """CamVid's layout with two frames each."""
    for number, split in enumerate(("train", "val")):
        for name in ("1", "2"):
            ids = own_sets.drawn(own_sets.scene(number))
            own_sets.save(own_sets.painted(ids, number), root / split / f"{name}.png")
            own_sets.save(ids, root / f"{split}annot" / f"{name}.png")
    return root


def ade20k(root: Path) -> None:
    for split, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        ids = own_sets.drawn(own_sets.scene(1))
        own_sets.save(own_sets.painted(ids, 1), root / "images" / split / f"{name}.jpg")
        own_sets.save(ids, root / "annotations" / split / f"{name}.png")


def pictures(frame: Path) -> None:
    """What the pages call a picture, a folder of them, a list, a video, an aerial image."""
    import rasterio
    from rasterio.transform import from_origin

    for folder in ("pictures/below", "frames"):
        Path(folder).mkdir(parents=True)
    for name in ("pictures/one.png", "frames/one.png", "more.png"):
        shutil.copy(frame, name)
    image = cv2.imread(str(frame))
    cv2.imwrite("street.png", cv2.resize(image, (1024, 512)))
    cv2.imwrite("pictures/below/two.jpg", image)
    Path("more.txt").write_text("more.png\n")
    video = cv2.VideoWriter("drive.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 5, image.shape[1::-1])
    for _ in range(3):
        video.write(image)
    video.release()
    size = dict(zip(("height", "width"), image.shape, strict=False))
    place = dict(crs="EPSG:32633", transform=from_origin(4e5, 5e6, 0.1, 0.1))
    with rasterio.open("aerial.tif", "w", driver="GTiff", count=3, dtype="uint8", **size, **place) as file:
        file.write(np.moveaxis(image, 2, 0))


def test_there_are_commands():
    assert sum(map(len, COMMANDS.values())) > 25


@pytest.mark.parametrize(
    "page",
    [page for page, lines in COMMANDS.items() if lines],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_every_command_runs(page, tool, rendered_root, tmp_path, monkeypatch):
    monkeypatch.chdir(at_home(tmp_path, rendered_root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    [frame, *_] = sorted(Path("data/demo/leftImg8bit/val").rglob("*.png"))
    pictures(frame)
    ade20k(Path("data/ade/ADEChallengeData2016"))
    for root in ("FOLDER", "data/camvid"):
        camvid(Path(root))
    if any("prepare_dataset.py demo" in line for line in shell_lines(page)):
        for root in ("data/demo", "data/cityscapes"):
            shutil.rmtree(root)
    monkeypatch.setattr(latency, "in_subprocess", lambda function, *args: function(*args))  # saves imports
    for before in BEFORE.get(page.name, ()):
        run(before, tool)
    for line in COMMANDS[page]:
        run(line, tool)
