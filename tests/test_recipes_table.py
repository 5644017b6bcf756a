"""danseg configs: search and show recipes."""

from pathlib import Path

import pytest

from danseg.errors import UserError
from danseg.recipes import recipes
from danseg.recipes_table import described, matching, table

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ALL = recipes(CONFIGS)


def names(*words: str) -> list[str]:
    return [recipe.name for recipe in matching(ALL, words)]


def test_words_are_searched_in_names_and_headers():
    assert names() == [recipe.name for recipe in ALL]
    assert names("danet", "R101", "cityscapes") == ["danet_r101_cityscapes", "danet_r101_cityscapes_512x1024"]
    assert "psdanet_r50_ade20k" not in names("danet")  # a word begins with what is searched
    assert names("gaussian") == ["nonlocal_r50_cityscapes_gaussian"]
    assert "danet_r18_demo" in names("street scenes")
    assert names("danet_r101_cityscapes") == ["danet_r101_cityscapes"]  # a whole name is that recipe alone


def test_what_is_nowhere_is_said():
    with pytest.raises(UserError, match=r"none of the \d+ recipes has 'danett'; did you mean 'danet'\?"):
        names("danett", "r50")
    with pytest.raises(UserError, match=r"has demo and r101 together"):
        names("demo", "r101")


def test_a_line_each():
    head, *lines = table(ALL).splitlines()
    assert head.split() == "config data set iterations batch crop mIoU several scales".split()
    assert len(lines) == len(ALL)
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["danet_r101_cityscapes"] == "cityscapes 80000 8 769x769 80.47 82.02".split()
    assert rows["danet_r50_cityscapes_512x1024"] == "cityscapes 80000 8 512x1024 79.34 -".split()
    assert rows["danet_r18_demo"] == "demo 900 4 160x320 - -".split()


def test_the_tool_prints_it(tool, capsys):
    tool("configs").main(["danet", "camvid"])
    assert capsys.readouterr().out == table(matching(ALL, ["danet", "camvid"])) + "\n"
    tool("configs").main(["danet_r18_demo"])
    assert "small enough for a laptop" in capsys.readouterr().out


def test_one_is_described():
    text = described(next(recipe for recipe in ALL if recipe.name == "danet_r18_demo"))
    assert "small enough for a laptop" in text and text.endswith(str(CONFIGS / "danet_r18_demo.py"))
