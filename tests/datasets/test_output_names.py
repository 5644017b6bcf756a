"""What outputs are called: by the image, and by its path where that does not tell images apart."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import own_sets
from danseg.datasets.output_names import output_names
from danseg.errors import UserError
from reader import SMALL, checkpoint


class Part:
    """A data set of images below a folder."""

    def __init__(self, folder: str, *names: str) -> None:
        self.data_prefix = dict(img_path=folder)
        self.paths = [f"{folder}/{name}" for name in names]

    def __len__(self) -> int:
        return len(self.paths)

    def get_data_info(self, index: int) -> dict:
        return dict(img_path=self.paths[index])


def joined(*parts: Part) -> SimpleNamespace:
    return SimpleNamespace(datasets=parts)


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        (Part("val", "ulm/1.x.png", "bonn/2.png"), ["1.x", "2"]),
        (Part("val", "ulm/1.png", "bonn/1.png", "bonn/2.png"), ["ulm/1", "bonn/1", "bonn/2"]),
        (joined(Part("a/images", "1.png"), Part("b/images", "2.png")), ["1", "2"]),
        (joined(Part("a/images", "1.png"), Part("b/images", "1.png", "c/2.png")), ["a/1", "b/1", "b/c/2"]),
        # The same image in two sets is one.
        (joined(Part("val", "ulm/1.png"), Part("val", "ulm/1.png")), ["1"]),
    ],
)
def test_names(dataset, names):
    assert list(output_names(dataset).values()) == names


def test_what_cannot_be_told_apart_is_refused():
    with pytest.raises(UserError, match=r"^val/a/1.png and val/a/1.jpg are both named a/1, so that"):
        output_names(Part("val", "a/1.png", "a/1.jpg", "b/1.png"))


@pytest.mark.parametrize("form", ["ours", "ultralytics"])
def test_a_set_with_one_name_in_two_folders_is_tested_shown_and_scored(form, tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = [f"{split}/{folder}" for split in ("train", "val") for folder in ("day", "night")]
    for number, place in enumerate(places):
        ids = own_sets.drawn(own_sets.scene(number))
        own_sets.save(own_sets.painted(ids, number), Path(f"images/{place}/1.png"))
        own_sets.save(ids, Path(f"masks/{place}/1.png"))
    data = "data.yaml"
    Path(data).write_text(
        "path: .\ntrain: images/train\nval: images/val\nmasks_dir: masks\nnames: [a, b, c]\n"
    )
    if form == "ours":
        data, arguments = "data", ["--out", "data", "--classes", "a,b,c"]
        tool("prepare_dataset").main(["folder", "images", "masks", "--val-images", "images/val", *arguments])
    config = "danet_r18_folder"
    checkpoint(config, "weights.pth", data)
    outputs = ["--out", "predictions", "--show-dir", "shown", "--work-dir", "work"]
    tool("test").main([config, "weights.pth", "--data", data, *outputs, "--cfg-options", *SMALL])
    for out in ("predictions", "shown"):
        written = sorted(path.relative_to(out).as_posix() for path in Path(out).rglob("*.png"))
        assert [one.removeprefix("val/") for one in written] == ["day/1.png", "night/1.png"]
    tool("evaluate").main(["predictions", "masks", "--dataset", data])
    [tested] = Path("work").glob("metrics_*.json")
    scored = json.loads(Path("predictions_scores.json").read_text())
    assert scored["mIoU"] == json.loads(tested.read_text())["mIoU"]
