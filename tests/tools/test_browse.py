"""tools/browse.py: the sheet, the counts, and each mistake to one message."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danseg.io.images import read_image
from danseg.label_maps.label_png import read_label_map

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "danet_r18_folder.py"
TINY = Path(__file__).resolve().parents[1] / "engine" / "tiny.py"


@pytest.fixture
def run(tool, tmp_path, rendered_root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / f"{tmp_path.name}.py"
    config.write_text(f"_base_ = [{str(TINY)!r}]\n")

    def run(*arguments, options=()):
        tool("browse").main(
            [str(config), *arguments, "--cfg-options", f"data_root={rendered_root}", *options]
        )

    return run


def test_a_sheet_and_the_counts_of_the_files(run, rendered_root, capsys):
    run("--out", "sheets/first.png", "--count", "3", "--seed", "1")
    said = capsys.readouterr().out
    assert "train: CityscapesDataset, 6 images" in said and "sheet: sheets/first.png" in said
    maps = [read_label_map(path) for path in Path(rendered_root).glob("gtFine/train/**/*_labelTrainIds.png")]
    cells = {
        row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:5]]
        for row in said.splitlines()
        if row.startswith("| ")
    }
    for number, name in ((0, "road"), (17, "motorcycle"), (18, "bicycle")):
        pixels = sum(int((ids == number).sum()) for ids in maps)
        images = sum(bool((ids == number).any()) for ids in maps)
        assert cells[name][0] == f"{pixels:,}" and cells[name][2] == f"{images} of 6"
    first = read_image("sheets/first.png")
    run("--out", "again.png", "--count", "3", "--seed", "1")
    assert np.array_equal(read_image("again.png"), first)
    run("--out", "other.png", "--count", "3", options=("randomness={'seed':2}",))
    assert not np.array_equal(read_image("other.png"), first)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("--out", "sheet.jpg"), (), "ends in .png"),
        (("--out", ""), (), "ends in .png"),
        (("--out", "x.png", "--seed", "-1"), (), "--seed -1"),
        (("--out", "x.png", "--split", "test"), ("test_dataloader=None",), "test_dataloader"),
        (
            ("--out", "x.png", "--split", "val"),
            (
                "val_dataloader=None",
                "val_cfg=None",
                "val_evaluator=None",
                "default_hooks.checkpoint.save_best=None",
            ),
            "no val_dataloader",
        ),
        (("--out", "{file}/x.png"), (), "file"),
        (
            ("--out", "x.png"),
            (
                "train_dataloader.batch_size=9",
                "train_dataloader.drop_last=True",
                "train_dataloader.sampler={'type':'DefaultSampler','shuffle':True}",
            ),
            "no batch",
        ),
        (
            ("--out", "x.png"),
            ("train_dataloader.dataset.data_prefix={'img_path':'a','seg_map_path':'b'}",),
            "a",
        ),
    ],
)
def test_mistakes(arguments, options, words, run, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        run(*(one.format(file=tmp_path / "file") for one in arguments), options=options)
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "error: " in said and words in said and "Traceback" not in said
    assert not list(tmp_path.glob("*.png"))


def test_a_set_of_ones_own_and_images_in_which_several_ids_are_one_class(tool, tmp_path, capsys):
    for number, ids in enumerate([[0, 1, 2, 255], [0, 1, 1, 1], [0, 0, 2, 2], [0, 0, 0, 0]] * 2):
        for folder, value in (("images", 90), ("masks", np.repeat(ids, 8).astype(np.uint8))):
            (tmp_path / folder).mkdir(exist_ok=True)
            pixels = np.broadcast_to(value, (16, 32)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    for split, numbers in dict(train=range(4), val=range(4, 8)).items():
        (tmp_path / f"{split}.txt").write_text("".join(f"{n}.png\t{n}.png\n" for n in numbers))
    (tmp_path / "dataset.yaml").write_text(
        "danseg: 1\nimages: images\nmasks: masks\nnames: [road, thing]\nmapping: {0: 0, 1: 1, 2: 1}\n"
        "ignore: [255]\ntrain: train.txt\nval: val.txt\n"
    )
    sheet = tmp_path / "sheet.png"
    tool("browse").main([str(FOLDER), "--data", str(tmp_path), "--out", str(sheet), "--count", "2"])
    rows = [row.split("|")[1:-1] for row in capsys.readouterr().out.splitlines() if row.startswith("| ")]
    cells = {name.strip(): [cell.strip() for cell in rest] for name, *rest in rows}
    assert cells["road"] == ["1,024", "53.33", "4 of 4"]
    assert cells["thing"] == ["896", "46.67", "3 of 4"]
    assert sheet.is_file()


@pytest.mark.parametrize("count", ["0", "257", "x"])
def test_a_count_that_is_none(count, run, capsys):
    with pytest.raises(SystemExit) as ended:
        run("--out", "x.png", "--count", count)
    assert ended.value.code == 2 and "--count" in capsys.readouterr().err
