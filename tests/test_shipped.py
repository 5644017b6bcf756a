"""Where configs and tools lie, and how messages name a tool."""

import re
import sys

import pytest

from danseg import shipped

TEXT = (
    "run python tools/prepare_dataset.py demo, or tools/print_config.py configs/danet_r18_demo.py; "
    "see mytools/train.py, tools/x.sh, configs/mine.py and /a/configs/danet_r18_demo.py"
)
SAID = (
    "run danseg prepare demo, or danseg print-config danet_r18_demo; "
    "see mytools/train.py, tools/x.sh, configs/mine.py and /a/configs/danet_r18_demo.py"
)


def test_in_a_clone_the_folders_lie_beside_the_package():
    assert (shipped.shipped("tools") / "train.py").is_file()
    assert (shipped.shipped("configs") / "_base_" / "runtime.py").is_file()


def test_the_wheels_folders_come_first(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    monkeypatch.setattr(shipped, "MIM", tmp_path)
    assert shipped.shipped("configs") == (tmp_path / "configs").resolve()
    assert shipped.shipped("tools").parent == shipped._PACKAGE.parent


@pytest.mark.parametrize(
    ("argv", "kind", "said"),
    [
        (["tools/train.py"], "clone", TEXT),
        (["danseg"], "clone", TEXT),  # a file of the user's
        ([], "clone", TEXT),
        (["danseg train", "x"], "clone", SAID),
        (["tools/train.py"], "editable", TEXT),
        (["danseg train", "x"], "editable", SAID),
        (["tools/train.py"], "wheel", SAID),
        ([], "wheel", SAID),
    ],
)
def test_a_tool_is_named_as_it_is_started(argv, kind, said, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(shipped, "MIM", tmp_path)
    if kind == "wheel":
        (tmp_path / "tools").mkdir()
    elif kind == "editable":
        (tmp_path / "tools").symlink_to(shipped._PACKAGE.parent / "tools")
    assert shipped.in_clone() == (kind != "wheel")
    assert shipped.as_started(TEXT) == said
    assert shipped.as_started(said) == said


def test_nothing_else_looks_for_the_folders_of_a_clone():
    # In a wheel they lie elsewhere.
    beside = re.compile(r"""parents?\b(\[\d\])? / ["'](configs|tools|data|docs)["']""")
    found = [
        f"{path.name}: {line.strip()}"
        for path in shipped._PACKAGE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if beside.search(line) and not path.is_relative_to(shipped.MIM)
    ]
    assert not found
    assert beside.search('Path(__file__).parents[2] / "configs"')
