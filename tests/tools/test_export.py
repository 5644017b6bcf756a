"""tools/export.py: a table and a file, and one message for each mistake."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from danseg.engine.config.stored_config import config_to_text
from danseg.export.description import KEY
from danseg.export.formats import FORMATS
from few_layers import FewLayers, few_layers, few_layers_files, few_layers_model


@pytest.fixture
def files(tmp_path):
    return [str(path) for path in few_layers_files(tmp_path, few_layers())]


@pytest.fixture
def message(tool, tmp_path, capsys):
    """The message of an export that must fail and leave nothing behind."""

    def run(*arguments, status=1):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as ended:
            tool("export").main(list(map(str, arguments)))
        said = capsys.readouterr().err
        assert ended.value.code == status, said
        assert said.count("error: ") == 1 and "Traceback" not in said
        assert sorted(tmp_path.rglob("*")) == before
        return said

    return run


def test_a_table_and_a_file(tool, files, tmp_path, capsys):
    out = tmp_path / "new" / "net.onnx"
    options = ["--dynamic", "--with-preprocessing", "--labels"]
    tool("export").main([*files, "--format", "onnx", "--out", str(out), *options])
    said = capsys.readouterr().out
    assert said.startswith("few_layers, float32: takes (B, H, W, C) uint8, gives labels\n")
    assert "any number of pictures of any size, tried from 32 x 32 on" in said
    assert "1 x 48 x 72" in said and "100.000 %" in said and "allowed: 99.99 % of all labels" in said
    assert f"written: {out}" in said
    session = onnxruntime.InferenceSession(out)
    told = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
    assert (told["network"], told["checkpoint"]["name"]) == ("few_layers", "few_layers.pth")
    picture = np.random.default_rng(0).integers(0, 256, (1, 50, 70, 3), dtype=np.uint8)
    assert session.run(None, {"image": picture})[0].shape == (1, 50, 70)
    assert [path.name for path in out.parent.iterdir()] == ["net.onnx"]


def test_logits_of_one_size(tool, files, tmp_path, capsys):
    out = tmp_path / "net.pt"
    tool("export").main([*files, "--format", "torchscript", "--out", str(out), "--size", "40", "56"])
    said = capsys.readouterr().out
    assert said.startswith("few_layers, float32: takes (1, C, 40, 56) float32, gives logits\n")
    assert "3 x 40 x 56" in said and "allowed: 1e-04 of the largest logit, 99.99 % of all labels" in said
    assert torch.jit.load(out)(torch.zeros(1, 3, 40, 56)).shape == (1, 5, 10, 14)


def test_the_size_of_a_config_that_tests_by_windows_is_its_window(tool, files, tmp_path, capsys):
    windows = "model.test_cfg={'mode':'slide','crop_size':(32,40),'stride':(16,16)}"
    out = ["--format", "torchscript", "--out", str(tmp_path / "net.pt")]
    tool("export").main([*files, *out, "--cfg-options", windows])
    assert "takes (1, C, 32, 40)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--out", "{folder}/net.pt"], "--out {folder}/net.pt: a file of ONNX ends in .onnx"),
        (["--out", "{folder}/net"], "a file of ONNX ends in .onnx"),
        (
            ["--format", "torchscript", "--precision", "int8", "--out", "{folder}/net.pt"],
            "--format onnx or openvino",
        ),
        (["--out", "{folder}/few_layers.py/net.onnx"], "cannot make the folder for the file"),
        (["--out", "{folder}/folder.onnx", "--overwrite"], "folder.onnx is not a file"),
        (["--out", "{folder}/folder.onnx"], "folder.onnx exists"),
        (["--out", "{folder}/large.onnx"], "large.onnx.data exists"),
        (["--format", "openvino", "--out", "{folder}/other.xml"], "other.bin exists"),
        (
            [
                "--labels",
                "--cfg-options",
                "model.test_cfg={{'mode':'slide','crop_size':(32,32),'stride':(32,32)}}",
            ],
            "--labels: the config tests by windows",
        ),
        (
            [
                "--with-preprocessing",
                "--cfg-options",
                "test_dataloader.dataset.pipeline.0.color_type=unchanged",
            ],
            "--with-preprocessing takes pictures of 8 bits",
        ),
        (["--precision", "int8"], "--precision int8 needs pictures of the training set: "),
        (["--cfg-options", "model.decode_head.type=Nope"], "there is no such model"),
        (["--cfg-options", "model.decode_head.channels=4"], "does not fit this config's model"),
        (["--cfg-options", "crop_size=None"], "crop_size=None: give height and width"),
    ],
)
def test_a_mistake_is_one_message(message, files, tmp_path, arguments, said):
    (tmp_path / "folder.onnx").mkdir()
    for name in ("large.onnx.data", "other.bin"):
        (tmp_path / name).write_text("of another network")
    given = [one.format(folder=tmp_path) for one in arguments]
    rest = ["--format", "onnx", "--out", tmp_path / "net.onnx"]
    assert said.format(folder=tmp_path) in message(*files, *rest, *given)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--format", "tflite"], "invalid choice: 'tflite'"),
        (["--precision", "bfloat16"], "invalid choice: 'bfloat16'"),
        (["--size", "0", "64"], "--size"),
    ],
)
def test_what_is_no_choice_is_refused_at_once(message, files, tmp_path, arguments, said):
    rest = ["--format", "onnx", "--out", tmp_path / "net.onnx"]
    assert said in message(*files, *rest, *arguments, status=2)


def test_no_checkpoint_and_one_that_is_none(message, files, tmp_path):
    rest = ["--format", "onnx", "--out", tmp_path / "net.onnx"]
    assert "no_such.pth" in message(files[0], tmp_path / "no_such.pth", *rest)
    assert "name the checkpoint, too" in message(files[0], *rest, status=2)
    exported = tmp_path / "other.onnx"
    exported.write_bytes(b"\x08\x0a")
    assert "other.onnx" in message(files[0], exported, *rest)


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_a_package_that_is_missing(kind, message, files, tmp_path, monkeypatch):
    rest = ["--format", kind.name, "--out", tmp_path / f"net{kind.suffix}"]
    for package in kind.packages:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            said = message(*files, *rest)
        assert f"{kind.title} needs {package}" in said and "pip install 'danseg[export]'" in said


def test_a_network_of_one_size_is_not_exported_for_any(message, files, tmp_path, monkeypatch):
    forward = FewLayers.forward

    def picky(self, x):
        if tuple(x.shape[2:]) != (48, 72) and tuple(x.shape[2:]) != (128, 128):
            raise ValueError("wrong size")
        return forward(self, x)

    monkeypatch.setattr(FewLayers, "forward", picky)
    rest = ["--format", "torchscript", "--out", tmp_path / "net.pt"]
    said = message(*files, *rest, "--dynamic")
    assert "the network takes pictures of 48 x 72, and no smaller ones" in said and "--size 48 72" in said
    said = message(*files, *rest, "--size", "40", "40")
    assert (
        "the network takes no pictures of 40 x 40 (height x width): wrong size" in said
        and "--size HEIGHT WIDTH" in said
    )


@pytest.mark.parametrize("name", ["torch-export", "torchscript"])
def test_what_a_size_decides_is_not_exported_for_any(name, message, files, tmp_path, monkeypatch):
    forward = FewLayers.forward
    monkeypatch.setattr(FewLayers, "forward", lambda self, x: forward(self, x * (2 if x.shape[3] % 8 else 1)))
    kind = FORMATS[name]
    said = message(*files, "--format", name, "--out", tmp_path / f"net{kind.suffix}", "--dynamic")
    assert f"net{kind.suffix} is not written: on pictures of 32 x 41 its logits differ" in said
    assert "leave out --dynamic" in said


def test_what_is_decided_for_one_size_is_not_exported_for_any(message, files, tmp_path, monkeypatch):
    forward = FewLayers.forward
    monkeypatch.setattr(FewLayers, "forward", lambda self, x: forward(self, x.view(*map(int, x.shape))))
    out = tmp_path / "net.pt2"
    said = message(*files, "--format", "torch-export", "--out", out, "--dynamic")
    assert "few_layers cannot be exported as torch.export" in said
    assert "leave out --dynamic (--size 48 72)" in said


def test_one_file_that_carries_its_config(tool, tmp_path, capsys):

    config = few_layers()
    weights = few_layers_model(config).state_dict()
    source, out = tmp_path / "carrying.pth", tmp_path / "net.pt"
    torch.save(dict(state_dict=weights, meta=dict(cfg=config_to_text(config))), source)
    tool("export").main([str(source), "--format", "torchscript", "--out", str(out)])
    assert "carrying, float32" in capsys.readouterr().out and Path(out).is_file()
