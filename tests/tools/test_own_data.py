"""From a folder of pictures to a trained network in two commands, for sets labelled in five ways; its use."""

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import own_sets
from child_process import ROOT
from danseg.label_maps.label_png import read_label_map

CONFIG = str(ROOT / "configs" / "danet_r18_folder.py")
# What docs/own_data.md says for a first try: smaller crops and fewer iterations than follow from the set.
SHORT = ("--cfg-options", "crop_size=(64,64)", "max_iters=100")
IMAGES = 20
SETS = {  # how it is made, and what tools/prepare_dataset.py folder is told of it
    "ids": (own_sets.ids_set, "images", "masks", ["--classes", "ground,disc,box"]),
    "binary": (own_sets.binary_set, "images", "masks", ["--classes", "ground,thing", "--map", "255:1"]),
    "colours": (
        own_sets.colour_set,
        "images",
        "masks",
        ["--mask-suffix", "_mask", "--colours", "colours.csv"],
    ),
    "labelme": (own_sets.labelme_set, "images", "labels", []),
    "coco": (own_sets.coco_set, "images", "instances.json", []),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs() -> dict[str, SimpleNamespace]:
    return {}


@pytest.fixture
def trained(tool, runs, tmp_path_factory, monkeypatch):
    """Prepare and train one of the sets, once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))

    def get(name: str) -> SimpleNamespace:
        if name not in runs:
            runs[name] = _trained(tool, tmp_path_factory.mktemp(name), *SETS[name])
        return runs[name]

    return get


def _trained(tool, folder: Path, make, images: str, labels: str, arguments: list[str]) -> SimpleNamespace:
    true = make(folder, IMAGES)
    data, work = folder / "data", folder / "work"
    arguments = [str(folder / one) if (folder / one).is_file() else one for one in arguments]
    start = time.perf_counter()
    tool("prepare_dataset").main(
        ["folder", str(folder / images), str(folder / labels), "--out", str(data), *arguments]
    )
    tool("train").main([CONFIG, "--data", str(data), "--work-dir", str(work), "--seed", "0", *SHORT])
    seconds = time.perf_counter() - start
    [best] = work.glob("best_mIoU_*.pth")
    scores = json.loads((work / "validations.json").read_text())
    return SimpleNamespace(
        folder=folder, data=str(data), work=work, best=str(best), scores=scores, seconds=seconds, true=true
    )


@pytest.mark.parametrize("name", SETS)
def test_two_commands_train_a_network(trained, name, capsys):
    run = trained(name)
    print(run.scores)
    best = max(one["mIoU"] for one in run.scores)
    with capsys.disabled():
        print(f"\n{name}: mIoU {best:.1f} after {run.seconds:.1f} s")
    assert best >= 85


def test_what_was_trained_is_tested_used_and_scored(trained, tool, tmp_path, capsys):
    """The other tools read the same file."""
    run = trained("ids")
    tool("check_dataset").main([CONFIG, "--data", run.data])
    assert "val: OwnDataset" in capsys.readouterr().out

    out, work = tmp_path / "out", tmp_path / "work"
    tool("test").main([CONFIG, run.best, "--data", run.data, "--out", str(out), "--work-dir", str(work)])
    [file] = work.glob("metrics_*.json")
    tested = json.loads(file.read_text())
    best = max(run.scores, key=lambda one: one["mIoU"])
    assert tested["mIoU"] == best["mIoU"]

    tool("evaluate").main([str(out), str(run.folder / "masks"), "--dataset", run.data])
    scored = json.loads((tmp_path / "out_scores.json").read_text())
    assert scored["mIoU"] == pytest.approx(tested["mIoU"], abs=1e-9)

    image = next(iter(sorted(out.glob("*.png")))).stem
    picture = str(run.folder / f"images/{image}.jpg")
    tool("predict").main([CONFIG, run.best, picture, "--data", run.data, "--out", str(tmp_path)])
    labels = read_label_map(tmp_path / f"{image}_labels.png")
    true = run.true[image]
    assert (labels == true)[true != 255].mean() > 0.9
    # The config that training has written needs no --data, nor the set.
    written = str(run.work / Path(CONFIG).name)
    tool("predict").main([written, run.best, picture, "--out", str(tmp_path / "again")])
    np.testing.assert_array_equal(read_label_map(tmp_path / f"again/{image}_labels.png"), labels)


def test_every_tool_that_takes_a_config_takes_data(tool, capsys):
    taking = []
    for path in sorted((ROOT / "tools").glob("*.py")):
        with pytest.raises(SystemExit):
            tool(path.stem).main(["--help"])
        said = capsys.readouterr().out
        if re.search("^  config ", said, re.MULTILINE):
            taking.append(path.stem)
            assert "--data SET" in said, path.stem
    assert {"train", "test", "predict", "latency"} <= set(taking)


def test_a_folder_recipe_without_data_takes_the_set_in_its_own_place(tool, tmp_path, monkeypatch, capsys):
    own_sets.ids_set(tmp_path, 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(SystemExit):
        tool("train").main([CONFIG])
    message = capsys.readouterr().err
    assert message.count("error:") == 1 and "folder IMAGES MASKS --out data/mine" in message
    tool("prepare_dataset").main(["folder", "images", "masks", "--out", "data/mine"])
    tool("train").main([CONFIG, "--cfg-options", "max_iters=2", "num_workers=0"])
    said = capsys.readouterr().out
    assert "crop_size = (96, 128)" in said and "num_classes = 3" in said  # the recipe's are (512, 512) and 2
    assert "data_root = 'data/mine'" in said and "best checkpoint" in said


def test_another_set_than_the_one_trained_on_is_one_message(trained, tool, tmp_path, capsys):
    run = trained("ids")
    other = tmp_path / "dataset.yaml"
    content = yaml.safe_load(Path(run.data, "dataset.yaml").read_text())
    del content["colours"]
    content |= {split: f"{run.data}/{split}.txt" for split in ("train", "val")}

    def name(*names: str) -> None:
        other.write_text(yaml.safe_dump(content | dict(names=list(names))))

    def said(tool_name: str, *arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            tool(tool_name).main([CONFIG, *arguments])
        assert ended.value.code == 1
        return capsys.readouterr().err

    work = ("--work-dir", str(tmp_path / "work"))
    name("disc", "ground", "box")
    assert "the same classes in another order" in said("test", run.best, "--data", str(other), *work)
    name("ground", "disc", "box", "ring")
    message = said("test", run.best, "--data", str(other), *work)
    assert message.count("error:") == 1 and "It was trained for 3 classes" in message and "--data" in message
    picture = str(next((run.folder / "images").iterdir()))
    message = said("predict", run.best, picture, "--data", str(other), "--out", str(tmp_path))
    assert message.count("error:") == 1 and "It was trained for 3 classes" in message
    message = said("predict", run.best, picture, "--out", str(tmp_path))  # without the set
    assert "needs the same --data" in message

    # The training's own folder, resumed with a changed set.
    name("ground", "ball", "box")
    resumed = ("--work-dir", str(run.work), "--resume", "--seed", "0", *SHORT)
    message = said("train", "--data", str(other), *resumed)
    assert (
        "own_data.0.names" in message and "images" not in message.partition("own_data")[0].rpartition("\n")[2]
    )
