import pytest
import torch

from authors_networks import Plain, danet, torchvision_fcn
from danseg.convert.conversion import SOURCES


@pytest.fixture
def theirs(tmp_path):
    net = Plain()
    danet(net, torch.zeros(1, 3, 33, 33, dtype=torch.float64))
    torch.save({"state_dict": net.weights}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


def test_its_sources_are_those_of_the_package(tool):
    assert tool("convert").SOURCES == tuple(SOURCES)


def test_a_file_is_converted_and_told_of(tool, theirs, tmp_path, capsys):
    out = tmp_path / "new" / "ours.pth"
    tool("convert").main(["--from", "danet", str(theirs), "--out", str(out)])
    said = capsys.readouterr().out
    assert out.is_file() and out.with_suffix(".py").is_file()
    for part in (
        "danseg::danet_r50_cityscapes with",
        "model.backbone.type='ResNet'",
        "model.auxiliary_head=None",
    ):
        assert part in said
    assert f"use it: python tools/test.py {out}" in said


def test_options_of_the_command_line(tool, theirs, tmp_path, capsys):
    out = tmp_path / "ours.pth"
    arguments = [
        "--config",
        "danet_r50_cityscapes_512x1024",
        "--cfg-options",
        "model.backbone.multi_grid=None",
    ]
    tool("convert").main([str(theirs), "--from", "danet", "--out", str(out), *arguments])
    said = capsys.readouterr().out
    assert "danseg::danet_r50_cityscapes_512x1024 with" in said and "assumed" not in said


def test_a_mistake_is_one_message(tool, theirs, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        tool("convert").main(["--from", "ccnet", str(theirs), "--out", str(tmp_path / "ours.pth")])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.startswith("error: ") and "It looks like --from danet" in said
    assert "Traceback" not in said and not (tmp_path / "ours.pth").exists()


def test_the_source_has_to_be_named(tool, theirs, capsys):
    with pytest.raises(SystemExit) as ended:
        tool("convert").main([str(theirs), "--out", "ours.pth"])
    assert ended.value.code == 2 and "--from" in capsys.readouterr().err


def test_predict_runs_with_the_one_file(tool, tmp_path, capsys):
    """A converted network predicts at once, with the names of its classes."""
    from danseg.io.images import encode_image

    net = Plain()
    torchvision_fcn(net, torch.zeros(1, 3, 33, 33, dtype=torch.float64))
    torch.save(net.weights, tmp_path / "theirs.pth")
    out = tmp_path / "ours.pth"
    tool("convert").main(["--from", "torchvision", str(tmp_path / "theirs.pth"), "--out", str(out)])
    picture = tmp_path / "picture.png"
    import numpy as np

    picture.write_bytes(encode_image(np.zeros((40, 60, 3), np.uint8), ".png"))
    tool("predict").main([str(out), str(picture), "--out", str(tmp_path / "labels"), "--device", "cpu"])
    assert any((tmp_path / "labels").rglob("*.png"))
