"""Checkpoints: no code in a file runs, weights load only where they fit."""

import json
import os
import sys
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file
from torch import nn

from danseg.attention import PositionAttention
from danseg.engine.checkpoints.checkpoint import load_weights, read_checkpoint
from danseg.errors import UserError
from unreadable_file import forbid


class Malicious:
    """Unpickling an instance makes a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class GetattrTrick:
    """Misuses the getattr that histories need, to reach another object."""

    def __reduce__(self):
        return getattr, (np.ndarray, "tofile")


def network(classes=3):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, classes, 1))


def save(path, **extra):
    torch.save({"state_dict": network().state_dict(), "meta": {"iter": 1}, **extra}, path)
    return path


@pytest.mark.parametrize("place", ["meta", "message_hub", "alone"])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path, place):
    path, marker = tmp_path / "evil.pth", tmp_path / "ran"
    if place == "alone":
        torch.save(Malicious(marker), path)
    else:
        save(path, **{place: {"config": Malicious(marker)}})
    with pytest.raises(UserError, match=r"refused: it holds posix\.mkdir"):
        read_checkpoint(path)
    assert not marker.exists()


def test_getattr_serves_histories_only(tmp_path):
    path = tmp_path / "trick.pth"
    torch.save({"state_dict": network().state_dict(), "meta": GetattrTrick()}, path)
    with pytest.raises(UserError, match="refused"):
        read_checkpoint(path)


def test_an_old_style_pickle_is_refused_too(tmp_path):
    path, marker = tmp_path / "old.pth", tmp_path / "ran"
    torch.save(Malicious(marker), path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="refused"):
        read_checkpoint(path)
    assert not marker.exists()


def test_what_training_stores_can_be_read(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    hub = {"log_scalars": {"loss": history}, "runtime_info": {"best": np.float32(1.5), "last": np.float64(2)}}
    checkpoint = read_checkpoint(save(tmp_path / "iter_1.pth", message_hub=hub))
    assert checkpoint["message_hub"]["log_scalars"]["loss"].mean() == 1.5
    assert checkpoint["message_hub"]["runtime_info"]["best"] == 1.5


def test_a_bare_state_dict_and_the_prefix_of_ddp_load(tmp_path):
    source, target = network(), network()
    torch.save({f"module.{k}": v for k, v in source.state_dict().items()}, tmp_path / "ddp.pth")
    load_weights(target, tmp_path / "ddp.pth")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_the_authors_one_element_scales_load(tmp_path):
    module = PositionAttention(8)
    state = {n: v.reshape(1) if v.dim() == 0 else v for n, v in module.state_dict().items()}
    state["gamma.scale"] = torch.tensor([0.7])
    torch.save({"state_dict": state}, tmp_path / "authors.pth")
    load_weights(module, tmp_path / "authors.pth")
    assert module.gamma.scale.item() == pytest.approx(0.7)


def test_another_architecture_names_the_parameters(tmp_path):
    path = save(tmp_path / "a.pth")
    target = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1), nn.Linear(2, 2))
    before = [p.clone() for p in target.parameters()]
    with pytest.raises(UserError) as caught:
        load_weights(target, path)
    message = str(caught.value)
    assert "2.weight (3, 4, 1, 1) instead of (5, 4, 1, 1)" in message
    assert "missing in the checkpoint: 3.weight, 3.bias" in message
    assert "config that the checkpoint was trained with" in message
    assert all(torch.equal(a, b) for a, b in zip(before, target.parameters(), strict=True))


UNUSABLE = {
    "nan": (torch.full((4,), float("nan")), "1 weights hold NaN or infinity: 0.bias"),
    "inf": (torch.tensor([0, 1, float("-inf"), 2]), "1 weights hold NaN or infinity: 0.bias"),
    "integer": (torch.ones(4, dtype=torch.int64), r"another kind .*0.bias \(int64 instead of float32\)"),
    "complex": (
        torch.ones(4, dtype=torch.complex64),
        r"another kind .*0.bias \(complex64 instead of float32",
    ),
    "8 bits": (torch.ones(4).to(torch.float8_e4m3fn), r"another kind .*0.bias \(float8_e4m3fn instead of"),
    "list": ([1.0] * 4, "1 weights are not plain tensors: 0.bias"),
    "dict": ({"a": torch.ones(4)}, "1 weights are not plain tensors: 0.bias"),
    "sparse": (torch.ones(4).to_sparse(), "1 weights are not plain tensors: 0.bias"),
    "empty": (torch.ones(4, device="meta"), "1 weights are not plain tensors: 0.bias"),
}


@pytest.mark.parametrize("value", UNUSABLE)
def test_weights_that_are_no_finite_numbers_of_the_models_kind_are_refused(tmp_path, value):
    wrong, message = UNUSABLE[value]
    state = {**network().state_dict(), "0.bias": wrong}
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "a.pth")
    target = network()
    before = [one.clone() for one in target.state_dict().values()]
    with pytest.raises(UserError, match=rf"a\.pth .*{message}") as caught:
        load_weights(target, tmp_path / "a.pth")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, target.state_dict().values(), strict=True))


def test_weights_of_other_widths_and_an_averaged_counter_load(tmp_path):
    state = {n: v.to(torch.bfloat16) if v.dim() else v.float() for n, v in network().state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    target = network()
    load_weights(target, tmp_path / "a.pth")
    assert torch.equal(target[0].weight, state["0.weight"].float())
    assert target[1].num_batches_tracked.dtype == torch.int64


def test_an_empty_state_dict_does_not_pass(tmp_path):
    torch.save({"state_dict": {}, "meta": {}}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="missing in the checkpoint"):
        load_weights(network(), tmp_path / "empty.pth")


def test_files_that_are_no_checkpoints_get_one_message(tmp_path):
    whole = save(tmp_path / "iter_1.pth").read_bytes()
    for name, content, message in (
        ("cut.pth", whole[: len(whole) // 2], "is cut off"),
        ("zero.pth", b"", "0 bytes"),
        ("text.pth", b"hello, world\n", "neither a PyTorch checkpoint nor"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_checkpoint(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds a list"):
        read_checkpoint(tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"does not exist; .* holds .*iter_1\.pth"):
        read_checkpoint(tmp_path / "iter_2.pth")
    with pytest.raises(UserError, match="is a folder"):
        read_checkpoint(tmp_path)


def equal(a, b):
    """Whether two contents are the same, bit for bit."""
    if torch.is_tensor(a) and torch.is_tensor(b):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    """Checksums cover all entries; what is left are dates, versions and padding, which nothing reads."""
    path = save(tmp_path / "a.pth")
    whole, truth = path.read_bytes(), read_checkpoint(path)
    with zipfile.ZipFile(path) as archive:
        contents = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        listing = archive.start_dir

    def refused_with(place, bits, message):
        damaged = bytearray(whole)
        damaged[place] ^= bits
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"a.pth is damaged: its {message}"):
            read_checkpoint(path)

    seen = Counter()
    for bit in range(0, 8 * len(whole), 31):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            content = read_checkpoint(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            seen["refused"] += 1
        else:
            assert equal(content, truth), f"bit {bit} changed what is read"
            seen["accepted"] += 1
    assert seen["refused"] > seen["accepted"] > 0
    for name, content in contents.items():
        if whole.count(content) == 1:
            refused_with(whole.index(content) + len(content) // 2, 1, f"entry {name} is not .*Bad CRC-32")
    # No checksum covers the attributes, of which torch obeys one: of a folder it reads nothing.
    place = listing
    for name in contents:
        place = whole.index(b"PK\x01\x02", place)
        refused_with(place + 38, 0x10, f"entry {name} is not .*folder")
        place += 4


def test_files_without_checksums_are_read(tmp_path):
    state = {"state_dict": network().state_dict()}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert equal(read_checkpoint(tmp_path / "old.pth"), state)
    if not hasattr(torch.serialization, "set_crc32_options"):
        return
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "unsummed.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert equal(read_checkpoint(tmp_path / "unsummed.pth"), state)


def test_files_that_cannot_be_opened_get_one_message(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"a{300}\.pth cannot be read: File name too long$"):
        read_checkpoint(tmp_path / f"{'a' * 300}.pth")
    with pytest.raises(UserError, match="nobody-has-this-name"):
        read_checkpoint("~nobody-has-this-name/a.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match=r"pipe\.pth is a FIFO"):
        read_checkpoint(tmp_path / "pipe.pth")
    forbid(save(tmp_path / "a.pth"), monkeypatch)
    with pytest.raises(UserError, match=r"a\.pth cannot be read: Permission denied$"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.fixture
def safetensors(tmp_path):
    """A file of safetensors with the weights of a network, and their values."""
    library = pytest.importorskip("safetensors.torch")
    state = network().state_dict()
    library.save_file(dict(state), tmp_path / "a.safetensors", metadata={"format": "pt", "classes": "[1]"})
    return tmp_path / "a.safetensors", state


def test_safetensors_load_as_a_checkpoint_does(safetensors):
    path, state = safetensors
    target = network()
    assert load_weights(target, path).get("meta") == {}
    assert equal(dict(target.state_dict()), dict(state))
    renamed = path.rename(path.with_suffix(".pth"))  # what is in a file decides, not its name
    assert read_checkpoint(renamed)["state_dict"].keys() == state.keys()


def test_damaged_safetensors_get_one_line(safetensors, tmp_path):
    path, state = safetensors
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    one = header["0.weight"]
    first, last = one["data_offsets"]

    def built(change):
        text = json.dumps({**header, "0.weight": {**one, **change}}).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + length :]

    cases = {
        "cut": whole[:-1],
        "longer": whole + b"\0",
        "header cut": whole[:40],
        "header only": whole[: 8 + length],
        "no tensors": (2).to_bytes(8, "little") + b"{}",
        "length too long": (len(whole) * 2).to_bytes(8, "little") + whole[8:],
        "length too short": (length - 3).to_bytes(8, "little") + whole[8:],
        "no text": whole[:20] + b"\xff" + whole[21:],
        "unknown type": built({"dtype": "F12"}),
        "other shape": built({"shape": [4, 3, 3, 4]}),
        "huge shape": built({"shape": [2**40, 2**40]}),
        "overlapping": built({"data_offsets": [first - 4, last - 4]}),
        "beyond the end": built({"data_offsets": [first + 10**9, last + 10**9]}),
        "negative": built({"data_offsets": [-8, last - first - 8]}),
    }
    for name, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            load_weights(network(), path)
        assert str(path) in str(caught.value), name
        if name != "no tensors":  # whose weights are missing, which is listed
            assert "\n" not in str(caught.value), name
    path.write_bytes(whole[:8] + b"[" + whole[9:])
    with pytest.raises(UserError, match="neither a PyTorch checkpoint nor"):
        read_checkpoint(path)


def test_without_the_package_safetensors_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    text = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
    with pytest.raises(UserError, match=r"pip install safetensors$"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_notes_of_danseg_in_a_file_of_safetensors_are_its_meta(tmp_path):
    path = tmp_path / "a.safetensors"
    weights = {"a": torch.ones(2)}
    save_file(weights, path, {"danseg": '{"cfg": "a = 1"}', "format": "pt"})
    found = read_checkpoint(path)
    assert found["meta"] == {"cfg": "a = 1"} and torch.equal(found["state_dict"]["a"], weights["a"])
    for notes, said in (
        ("{", "damaged"),
        ("3", "its meta is a int"),
        ('{"cfg": 3}', "its meta.cfg is a int"),
    ):
        save_file(weights, path, {"danseg": notes})
        with pytest.raises(UserError, match=said):
            read_checkpoint(path)
