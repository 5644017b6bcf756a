"""What an exported file says of itself is read without a runtime, or refused in one message."""

import sys
import zipfile

import onnx
import pytest
import torch
from torch import nn

from danseg.errors import UserError
from danseg.export import read_description as module
from danseg.export.description import KEY
from danseg.export.read_description import read_description
from danseg.model_files import EXPORTED
from exported_files import SUFFIXES, described, write


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 2, 3).eval()


def written(folder, suffix, description):
    return write(folder / f"tiny{suffix}", network(), torch.zeros(2, 3, 16, 24), description)


def test_the_kinds_are_tested():
    assert set(SUFFIXES) == set(EXPORTED) == set(module._READERS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_runtime_is_needed(tmp_path, monkeypatch, suffix):
    path = written(tmp_path, suffix, described(classes=("straße", "<car> & 'bus'")))
    for package in ("onnx", "onnxruntime", "openvino", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    assert read_description(path) == described(classes=("straße", "<car> & 'bus'"))


def test_other_entries_of_a_file_are_stepped_over(tmp_path):
    path = written(tmp_path, ".onnx", None)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"a": "b", KEY: described().to_json(), "z": ""})
    onnx.save(model, path)
    assert read_description(path) == described()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_another_program_is_refused(tmp_path, suffix):
    with pytest.raises(UserError, match="danseg did not export it, or its end is missing; export"):
        read_description(written(tmp_path, suffix, None))


@pytest.mark.parametrize("suffix", [".pt2", ".pt"])
def test_a_checkpoint_is_refused(tmp_path, suffix):
    torch.save(dict(state_dict=network().state_dict()), tmp_path / f"best{suffix}")
    with pytest.raises(UserError, match="danseg did not export it"):
        read_description(tmp_path / f"best{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_file_is_refused(tmp_path, suffix):
    path = written(tmp_path, suffix, described())
    whole = path.read_bytes()
    for length in {0, 1, 7, 100, len(whole) // 3, len(whole) // 2, len(whole) - 20}:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=f"{path.name} .*(export|interrupted)") as caught:
            read_description(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content", [b"not a network", b"\xff" * 50, b"<!DOCTYPE a>", b"\x72\x80\x80\x80\x80\x01"]
)
def test_other_bytes_are_refused(tmp_path, suffix, content):
    (tmp_path / f"tiny{suffix}").write_bytes(content)
    with pytest.raises(
        UserError, match=f"tiny{suffix} (.*damaged|says nothing|defines|is no XML|is not UTF-8)"
    ):
        read_description(tmp_path / f"tiny{suffix}")


@pytest.mark.parametrize("suffix", [".pt2", ".pt"])
def test_a_flipped_bit_in_what_pytorch_wrote_is_found(tmp_path, suffix):
    path = written(tmp_path, suffix, described())
    with zipfile.ZipFile(path) as archive:
        entry = next(one for one in archive.infolist() if one.filename.endswith(("weight_0", "data/0")))
    content = bytearray(path.read_bytes())
    content[content.index(network().weight.detach().numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"damaged: its entry {entry.filename}"):
        read_description(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="absent.onnx cannot be read: it does not exist"):
        read_description(tmp_path / "absent.onnx")
    with pytest.raises(UserError, match=r"best\.pth is no exported network; those end in \.onnx, \.xml"):
        read_description(tmp_path / "best.pth")
