"""Arguments that several tools take: written once, and what reads their numbers."""

import argparse
import ast
from collections import defaultdict
from pathlib import Path

import pytest

from danseg.tool_arguments import number, parse_count

ROOT = Path(__file__).resolve().parents[1]


def written(path: Path) -> list[tuple[str, str]]:
    """Each option that a file adds itself, as its name and its help."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
    ]
    texts = [{one.arg: ast.unparse(one.value) for one in call.keywords}.get("help", "") for call in calls]
    return [(ast.unparse(call.args[0]), text) for call, text in zip(calls, texts, strict=True)]


def test_an_option_of_one_meaning_is_written_once():
    files = [*ROOT.glob("tools/*.py"), ROOT / "benchmarks/recipes.py", ROOT / "danseg/tool_arguments.py"]
    places = defaultdict(set)
    for path in files:
        for option in written(path):
            places[option].add(path.name)
    assert len(places) > 50
    assert not {option: names for option, names in places.items() if len(names) > 1}


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [(parse_count, "1", 1), (number(int, 0, 0), "0", 0), (number(float, 1e-6, 1), "1", 1.0)],
)
def test_numbers_within_their_limits(read, text, value):
    assert read(text) == value and type(read(text)) is type(value)


@pytest.mark.parametrize(
    ("read", "text", "allowed"),
    [
        (parse_count, "0", "a whole number from 1"),
        (parse_count, "1.5", "a whole number from 1"),
        (number(int, 0, 0), "1", "a whole number from 0 to 0"),
        (number(float, 1e-6, 1), "nan", "a number from 1e-06 to 1"),
        (number(float, 1e-6, 1), "many", "a number from 1e-06 to 1"),
    ],
)
def test_other_numbers_are_refused_with_the_limits(read, text, allowed):
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        read(text)
    assert str(refused.value) == f"expected {allowed}, got {text!r}"
