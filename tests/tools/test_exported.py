"""Exported networks in the place of CONFIG CHECKPOINT: what the tools make of them, and what they refuse."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from danseg import apis
from danseg.visualization import read_labels
from exported_files import write_model

TINY = Path(__file__).resolve().parents[1] / "engine" / "tiny.py"
TEXT = f"""_base_ = ["{TINY}"]
model = dict(decode_head=dict(
    _delete_=True, type="FCNHead", num_convs=1, in_channels=64, channels=16, num_classes=19,
    norm_cfg=dict(type="SyncBN"),
))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a config, random weights whose predictions vary over an image, and exported files."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "tiny.py").write_text(TEXT)
    torch.manual_seed(0)
    model = apis.load_model(folder / "tiny.py", None, "cpu")
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / "best.pth")
    write_model(folder / "tiny.onnx", model)
    write_model(folder / "pictures.xml", model, with_preprocessing=True)
    write_model(folder / "fixed.pt", model, size=(32, 64), batch=1)
    return folder


@pytest.fixture(scope="module")
def evaluate(tool, tmp_path_factory, rendered_root):
    """``evaluate(*arguments)``: the report of tools/test.py, and its folder."""

    def run(*arguments):
        work = tmp_path_factory.mktemp("work")
        data = ["--cfg-options", f"test_dataloader.dataset.data_root={rendered_root}"]
        tool("test").main([*map(str, arguments), "--work-dir", str(work), *data])
        return json.loads(next(work.glob("metrics_*.json")).read_text()), work

    return run


@pytest.fixture(scope="module")
def expected(evaluate, trained):
    """The checkpoint's report; its predictions are in the folder."""
    return evaluate(trained / "tiny.py", trained / "best.pth", "--out", trained / "out")[0]


def close(found, expected):
    """Scores of labels that are equal but for one in ten thousand."""
    assert found["classes"].keys() == expected["classes"].keys()
    for name in ("mIoU", "mAcc", "aAcc"):
        assert found[name] == pytest.approx(expected[name], abs=0.02), name
    assert expected["mIoU"] > 0


@pytest.mark.parametrize("file", ["tiny.onnx", "pictures.xml", "fixed.pt"])
def test_scores_are_those_of_the_checkpoint(evaluate, trained, expected, tmp_path, file, capfd):
    """The config tests by windows, whose size that of the fixed file is."""
    found, work = evaluate(trained / file, "--out", tmp_path / "found")
    close(found, expected)
    said = "".join(capfd.readouterr())
    assert "ExportedNetwork, ExportedHead" in said and f"weights:     {trained / file}" in said
    assert found["checkpoint"] == found["config"] == str(trained / file)
    names = sorted(path.name for path in (trained / "out").iterdir())
    assert len(names) == 5 and names == sorted(path.name for path in (tmp_path / "found").iterdir())
    for name in names:
        one, other = (cv2.imread(str(part / name), -1) for part in (trained / "out", tmp_path / "found"))
        assert (one != other).sum() <= 1
    assert [path.name for path in work.glob(f"{Path(file).stem}.*")] == [f"{Path(file).stem}.py"]


@pytest.mark.slow
def test_scores_with_augmentation(evaluate, trained):
    expected, _ = evaluate(trained / "tiny.py", trained / "best.pth", "--tta")
    close(evaluate(trained / "tiny.onnx", "--tta")[0], expected)


def test_pictures_and_videos(tool, trained, tmp_path, rendered_root, capfd):
    pictures = str(Path(rendered_root) / "leftImg8bit" / "val")
    video = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(3):
        video.write(cv2.resize(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8), (64, 48)))
    video.release()
    arguments = [pictures, str(tmp_path / "a.avi"), "--labels", "--overlay", "--probabilities", "--out"]
    for name, network in (("a", ["tiny.py", "best.pth"]), ("b", ["tiny.onnx"])):
        files = [str(trained / one) for one in network]
        tool("predict").main([*files, *arguments, str(tmp_path / name), "--device", "cpu"])
    made = {name: {p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*.*")} for name in "ab"}
    assert made["a"] == made["b"] and len(made["a"]) > 10
    labels = [one for one in made["a"] if one.name.endswith("labels.png")]
    assert labels
    for path in labels:
        one, other = (read_labels(tmp_path / name / path) for name in "ab")
        assert (one != other).sum() <= 1
    capfd.readouterr()
    tool("predict").main([str(trained / "tiny.onnx"), *arguments, str(tmp_path / "b")])
    assert "6 of 6 were finished and are skipped" in capfd.readouterr().err
    with pytest.raises(SystemExit):  # another network's predictions are there
        tool("predict").main([str(trained / "pictures.xml"), *arguments, str(tmp_path / "b")])
    assert "error: " in capfd.readouterr().err


def test_a_picture_that_a_fixed_file_does_not_take_is_named(tool, trained, tmp_path, capfd):
    for name, size in (("good", (64, 32)), ("bad", (50, 20))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((*size[::-1], 3), np.uint8))
    pictures = [str(tmp_path / f"{name}.png") for name in ("bad", "good")]
    with pytest.raises(SystemExit):
        tool("predict").main([str(trained / "fixed.pt"), *pictures, "--out", str(tmp_path / "out")])
    said = capfd.readouterr().err
    assert "1 of 2 could not be predicted" in said and "Traceback" not in said
    assert re.search(r"bad\.png.* for inputs of 32 x 64 .* this one has 20 x 50", said)
    assert len(list((tmp_path / "out").glob("good*"))) == 2


@pytest.mark.slow
def test_analysing(tool, trained, expected, tmp_path, rendered_root):
    out = ["--out", str(tmp_path / "out"), "--work-dir", str(tmp_path / "work"), "--worst", "1"]
    data = ["--cfg-options", f"test_dataloader.dataset.data_root={rendered_root}"]
    tool("analyze").main([str(trained / "tiny.onnx"), *out, *data])
    index = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert index["mIoU"] == pytest.approx(expected["mIoU"], abs=0.02) and index["precision"] == "float32"


@pytest.mark.parametrize(
    "name, arguments, said",
    [
        ("train", ["tiny.onnx"], "is an exported network, which .*name a config in its place"),
        ("test", ["tiny.py", "tiny.onnx"], "carries its config and its weights: name it alone"),
        ("predict", ["tiny.onnx", "a.png", "--out", "out", "--attention"], "whose attention has become"),
        ("predict", ["tiny.onnx", "a.png", "--out", "out", "--precision", "bfloat16"], "computes in float32"),
        ("predict", ["tiny.onnx", "a.png", "--out", "out", "--device", "tpu"], "device 'tpu' is none"),
        ("test", ["absent.onnx"], "absent.onnx cannot be read: it does not exist"),
        ("latency", ["tiny.onnx"], "is an exported network, which"),
    ],
)
def test_what_a_tool_refuses(tool, trained, tmp_path, monkeypatch, capfd, name, arguments, said):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", np.zeros((32, 64, 3), np.uint8))
    for file in trained.glob("*.*"):
        (tmp_path / file.name).symlink_to(file)
    with pytest.raises(SystemExit) as ended:
        tool(name).main(arguments)
    printed = capfd.readouterr().err
    assert ended.value.code == 1 and re.search(said, printed) and "Traceback" not in printed
