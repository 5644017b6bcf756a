import pickle

import pytest
import torch
from safetensors.torch import save_file

from danseg.convert import convert
from danseg.convert.foreign_file import read_foreign
from danseg.errors import UserError

WEIGHTS = {"conv.weight": torch.ones(2, 3), "norm.bias": torch.zeros(2)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "meta": {"CLASSES": ("a",)}},
        lambda w: {"model": {f"module.{n}": v for n, v in w.items()}, "epoch": 3},
        lambda w: {"epoch": 1, "model": {"state_dict": w}},
        lambda w: {"net": {f"_orig_mod.module.{n}": v for n, v in w.items()}},
        lambda w: {f"module._orig_mod.{n}": v for n, v in w.items()},
    ],
)
def test_wrappers_are_looked_through(wrap, tmp_path):
    torch.save(wrap(WEIGHTS), tmp_path / "theirs.pth")
    found = read_foreign(tmp_path / "theirs.pth")
    assert found.weights.keys() == WEIGHTS.keys() and torch.equal(
        found.weights["conv.weight"], torch.ones(2, 3)
    )
    assert found.meta in ({}, {"CLASSES": ("a",)})


def test_a_prefix_that_some_names_have_is_part_of_them(tmp_path):
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "theirs.pth")
    assert read_foreign(tmp_path / "theirs.pth").weights.keys() == {"module.a", "b"}


def test_files_of_safetensors(tmp_path):
    save_file(WEIGHTS, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert read_foreign(tmp_path / "theirs.safetensors").weights.keys() == WEIGHTS.keys()


class _Runs:
    def __reduce__(self):
        return (print, ("ran",))


def _cut_off(path):
    torch.save({"a": torch.zeros(9)}, path)
    path.write_bytes(path.read_bytes()[:-60])


@pytest.mark.parametrize(
    "write, said",
    [
        (lambda path: path.write_bytes(pickle.dumps({"state_dict": _Runs()})), "could run code"),
        (lambda path: torch.save({"meta": _Runs(), "state_dict": {}}, path), "could run code"),
        (_cut_off, "cut off"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("no weights"), "neither a PyTorch checkpoint"),
        (
            lambda path: torch.save({"state_dict": {"a": 3, "b": "x"}}, path),
            "2 entries that are no tensors: a, b",
        ),
        (lambda path: torch.save({"epoch": 3}, path), "1 entry that is no tensor: epoch"),
        (lambda path: torch.save({}, path), "holds no tensors"),
        (lambda path: torch.save([torch.zeros(3)], path), "holds a list"),
        (lambda path: None, "does not exist"),
    ],
)
def test_files_that_are_refused(write, said, tmp_path, capsys):
    write(tmp_path / "bad.pth")
    with pytest.raises(UserError, match=said):
        convert("danet", tmp_path / "bad.pth", tmp_path / "ours" / "ours.pth")
    assert "ran" not in capsys.readouterr().out and not (tmp_path / "ours").exists()
