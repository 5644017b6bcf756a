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


def calls(path: Path) -> set[str]:
    """The names of the functions that a file calls."""
    nodes = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {node.id for node in nodes if isinstance(node, ast.Name)}


TRAINED = [path for path in sorted(ROOT.glob("tools/*.py")) if "add_trained" in calls(path)]


def test_a_checkpoint_is_taken_by_one_rule():
    assert {"analyze", "latency", "predict", "test"} <= {path.stem for path in TRAINED}
    for path in ROOT.glob("tools/*.py"):
        own = {name.strip("'") for name, _ in written(path)}
        assert "checkpoint" not in own or "config" not in own, path
        assert ("add_trained" in calls(path)) == ("parse_trained" in calls(path)), path


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_one_file_that_carries_its_config_stands_for_both(path, tool, capsys):
    parse = tool(path.stem).parse_args
    takes = "images" if path.stem == "predict" else ""
    pictures = ["a.png", "b.pth"] if takes else []  # a picture may be called as it likes
    options = ["--out", "o"] if "'--out'" in path.read_text().replace('"', "'") else []
    for model in ("best.pth", "a.b/best.safetensors", "https://host/a.pth#sha256=01234567", "a.onnx"):
        for order in (
            [model, *pictures, *options],
            [*options, model, *pictures],
            [model, *options, *pictures],
        ):
            args = parse(order)
            assert (args.config, args.checkpoint) == (model, model), order
            assert not takes or args.images == pictures
    for config in ("danet_r18_demo", "a.pth/b.py"):
        for order in (
            [config, "c.pth", *pictures, *options],
            [config, *options, "c.pth", *pictures],
            [*options, config, "c.pth", *pictures],
        ):
            args = parse(order)
            assert (args.config, args.checkpoint) == (config, "c.pth"), order
            assert not takes or args.images == pictures
    wrong = [["best.pth"]] if takes else [["best.pth", "other.pth"], ["best.pth", "other.py"]]
    wrong += [["danet_r18_demo", "c.pth"]] if takes else [["danet_r18_demo"]] * (path.stem != "latency")
    for arguments in wrong:
        with pytest.raises(SystemExit):
            parse([*arguments, *options])
        said = capsys.readouterr().err
        assert any(part in said for part in ("stands alone", "name the checkpoint, too", "required: image"))
