"""The command line of tools/prepare_dataset.py, run as users run it and in this process."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from child_process import environment

REPO = Path(__file__).parents[2]
TOOL = REPO / "tools/prepare_dataset.py"


@pytest.fixture
def main(tool, tmp_path, monkeypatch):
    """The tool's ``main``, in an empty folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tool("prepare_dataset").main


def test_demo_then_cityscapes(main, capsys, tmp_path):
    main(["demo", "--train", "2", "--val", "1", "--height", "32", "--width", "64", "--seed", "1"])
    lines = capsys.readouterr().out.splitlines()
    (train,) = (line for line in lines if line.startswith("train: "))
    (val,) = (line for line in lines if line.startswith("val: "))
    assert "CityscapesDataset, 2 images with labels" in train
    assert "CityscapesDataset, 1 image with labels" in val
    for path in (tmp_path / "data/demo/gtFine").rglob("*_labelTrainIds.png"):
        path.unlink()
    main(["cityscapes", "data/demo"])
    # The same labels again, so the same report.
    assert capsys.readouterr().out.splitlines() == lines[lines.index(train) :]


def test_camvid_links(main, capsys, tmp_path):
    import numpy as np
    from PIL import Image

    for folder in ("train", "trainannot", "val", "valannot"):
        (tmp_path / "source" / folder).mkdir(parents=True)
        pixels = np.ones((4, 4) if folder.endswith("annot") else (4, 4, 3), np.uint8)
        pixels[0] = 3
        Image.fromarray(pixels).save(tmp_path / "source" / folder / "x.png")
    main(["camvid", "source", "--link"])
    assert (tmp_path / "data/camvid/val/x.png").is_symlink()
    assert "building 75.00%" in capsys.readouterr().out


def test_a_cache_of_every_kind_of_set_also_afterwards(main, capsys, tmp_path):
    import numpy as np
    from PIL import Image

    main(["demo", "--train", "2", "--val", "1", "--height", "32", "--width", "64", "--cache"])
    assert (
        "cache: 4 unpacked images and labels, 0.00 GiB in data/demo/danseg_cache" in capsys.readouterr().out
    )
    main(["cityscapes", "data/demo", "--cache"])  # the same layout, and the cache is there
    assert "(0 written now, 4 up to date)" in capsys.readouterr().out

    for folder in ("train", "trainannot", "val", "valannot"):
        (tmp_path / "data/camvid" / folder).mkdir(parents=True)
        pixels = np.ones((4, 4) if folder.endswith("annot") else (4, 4, 3), np.uint8)
        pixels[0] = 3
        Image.fromarray(pixels).save(tmp_path / "data/camvid" / folder / "x.png")
    main(["camvid", "data/camvid", "--cache"])
    assert "(2 written now, 0 up to date)" in capsys.readouterr().out
    assert (tmp_path / "data/camvid/danseg_cache/trainannot/x.png.npy").is_file()
    assert not (tmp_path / "data/camvid/danseg_cache/val").exists()  # only training takes crops

    ade = tmp_path / "data/ade/ADEChallengeData2016"
    for split in ("training", "validation"):
        for kind, suffix, shape in (("images", ".jpg", (4, 4, 3)), ("annotations", ".png", (4, 4))):
            (ade / kind / split).mkdir(parents=True)
            pixels = np.ones(shape, np.uint8)
            pixels[0] = 3
            Image.fromarray(pixels).save(ade / kind / split / f"x{suffix}")
    main(["ade20k", str(ade), "--cache"])
    assert "(2 written now, 0 up to date)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cityscapes"], "data/cityscapes"),
        (["ade20k", "ADEChallengeData2016.zip"], "there is no"),
        (["camvid", "nowhere"], "there is no"),
        (["demo", "--height", "-5"], "height is -5"),
        (["demo", "--train", "0", "--val", "1", "--height", "32", "--width", "64", "--cache"], "to cache in"),
    ],
)
def test_mistakes_get_one_message(main, capsys, arguments, words):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and "Traceback" not in error


@pytest.mark.slow
def test_as_a_command(tmp_path):
    done = subprocess.run(
        [sys.executable, str(TOOL), "camvid", "nowhere"],
        cwd=tmp_path,
        env=environment(XDG_CACHE_HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert f"error: there is no {tmp_path / 'nowhere'}" in done.stderr and "Traceback" not in done.stderr


def test_own_folder_with_every_option(main, capsys, tmp_path):
    import own_sets

    own_sets.colour_set(tmp_path / "set", 6)
    command = ["folder", "set/images", "set/masks", "--out", "data/mine", "--colours", "set/colours.csv"]
    main([*command, "--mask-suffix", "_mask", "--val", "0.34", "--classes", "box,disc,ground"])
    out = capsys.readouterr().out
    assert "6 images with masks of colours, written as class ids; 3 classes: 0 box, 1 disc, 2 ground" in out
    assert "train: OwnDataset, 4 images" in out and "val: OwnDataset, 2 images" in out
    assert out.endswith("--data data/mine\n")
    main(
        [
            "folder",
            "set/images",
            "data/mine/masks",
            "--out",
            "again",
            "--map",
            "0:2",
            "2:0",
            "--group",
            "^[a-z]+",
        ]
    )
    out = capsys.readouterr().out
    assert "in 2 groups by --group" in out and "3 images" in out
    assert "mapping: {0: 2, 1: 1, 2: 0}\n" in (tmp_path / "again/dataset.yaml").read_text()


def test_own_folder_mistakes_are_one_line(main, capsys, tmp_path):
    import own_sets

    own_sets.ids_set(tmp_path, 3)
    for arguments, said in (
        ([], "the following arguments are required: --out"),
        (["--out", "x", "--val", "0.5", "--val-images", "images"], "not allowed with argument"),
        (["--out", "x", "--val", "half"], "invalid float value"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["folder", "images", "masks", *arguments])
        assert stopped.value.code == 2 and said in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["folder", "images", "masks", "--out", "x", "--val", "2"])
    assert stopped.value.code == 1
    assert (
        capsys.readouterr().err
        == "error: --val 2 is no share between 0 and 1, as 0.2 is; each split needs images\n"
    )
    assert not (tmp_path / "x").exists()


PAGE = (REPO / "docs/own_data.md").read_text(encoding="utf-8")
PAGE_COMMANDS = re.findall(r"^python tools/prepare_dataset.py (folder .*)$", PAGE, re.MULTILINE)


def page_set(name):
    """Make the set that a command of docs/own_data.md names."""
    import own_sets

    kinds = dict(xray="binary", aerial="colour", fruit="labelme", shop="coco", yard="cvat", task="voc")
    root = Path(name)
    root.mkdir()
    for part in (root / "train", root / "val") if name == "split" else (root,):
        part.mkdir(exist_ok=True)
        getattr(own_sets, f"{kinds.get(name, 'ids')}_set")(part, 4)
    if name == "aerial":
        (root / "colours.txt").write_text(re.search(r"^ground,.*?(?=```)", PAGE, re.MULTILINE | re.DOTALL)[0])
    for path in [*root.rglob("*.jpg"), *root.rglob("*.png")] if name == "drive" else ():
        path.rename(path.with_stem(f"clip_{int(path.stem) // 2}_{path.stem}"))


@pytest.mark.parametrize("command", PAGE_COMMANDS)
def test_the_commands_of_the_page(main, capsys, command):
    arguments = shlex.split(command)
    page_set(arguments[1].split("/")[0])
    main(arguments)
    assert "next:\n" in capsys.readouterr().out


def test_the_page_has_each_kind_of_set():
    assert len(PAGE_COMMANDS) == len({command.split()[1] for command in PAGE_COMMANDS}) == 9


def test_the_files_of_the_page_are_read(tmp_path):
    from danseg.dataset_file import read_dataset_file

    own, other = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "dataset.yaml").write_text(own)
    assert read_dataset_file(tmp_path).label_ids == {0: 0, 255: 1, 254: 255}
    (tmp_path / "street").mkdir()
    (tmp_path / "dataset.yaml").write_text(other)
    assert read_dataset_file(tmp_path).label_ids == {7: 0, 0: 255, 1: 1, 2: 2, 255: 255}
