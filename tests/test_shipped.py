"""Where configs and tools lie, and how messages name a tool."""

import sys

import pytest

from danseg import shipped

TEXT = (
    "run python tools/prepare_dataset.py demo, or tools/print_config.py; see mytools/train.py and tools/x.sh"
)
SAID = "run danseg prepare demo, or danseg print-config; see mytools/train.py and tools/x.sh"


def test_in_a_clone_the_folders_lie_beside_the_package():
    assert (shipped.shipped("tools") / "train.py").is_file()
    assert (shipped.shipped("configs") / "_base_" / "runtime.py").is_file()


def test_the_wheels_folders_come_first(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    monkeypatch.setattr(shipped, "MIM", tmp_path)
    assert shipped.shipped("configs") == (tmp_path / "configs").resolve()
    assert shipped.shipped("tools").parent == shipped._PACKAGE.parent


@pytest.mark.parametrize(
    ("argv", "wheel", "said"),
    [
        (["tools/train.py"], False, TEXT),
        (["danseg"], False, TEXT),  # a file of the user's
        ([], False, TEXT),
        (["danseg train", "x"], False, SAID),
        (["tools/train.py"], True, SAID),
        ([], True, SAID),
    ],
)
def test_a_tool_is_named_as_it_is_started(argv, wheel, said, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(shipped, "MIM", tmp_path)
    if wheel:
        (tmp_path / "tools").mkdir()
    assert shipped.as_started(TEXT) == said
    assert shipped.as_started(said) == said
