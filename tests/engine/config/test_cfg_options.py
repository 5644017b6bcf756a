"""Values of --cfg-options: Python where it is Python, text as it was typed otherwise."""

import ast

import pytest

from danseg.engine.config.cfg_options import parse_options
from danseg.errors import UserError


@pytest.mark.parametrize(
    "text",
    [
        "/a b",
        " a",
        "don't",
        '"half',
        "x=y=z",
        "#1",
        "run#3",
        "3#b",
        "'a'#b",
        r"C:\new\table",
        "Straße/Zürich ü",
        "007",
        "2026_01",
        "2026-11-28",
        "1+2",
        "a,b",
        "a, b c",
        "",
        "none",
        "...",
        "1j",
        "b'x'",
        "1e999",
        "f'{x}'",
        "model.pth",
        "open-mmlab://resnet50_v1c",
        "a(b)",
        "a[0]",
        "first\nsecond",
        "--1e",
    ],
)
def test_text_stays_as_typed(text):
    assert parse_options([f"some.key={text}"]) == {"some.key": text}


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "-3",
        "+3",
        "1e-3",
        "-2.5",
        "0x10",
        "None",
        "True",
        "'(1)'",
        "'a b'",
        "((1,2),(3,4))",
        "(1,)",
        "()",
        "[]",
    ]
    + [
        "['a b', 'c']",
        "[{'type': 'EMAHook', 'momentum': 1e-4}]",
        "{'a': {'b': [1, (2, None)]}}",
        "1,2",
        "{'#': '#'}",
    ],
)
def test_python_is_read_as_python(text):
    value = parse_options([f"key={text}"])["key"]
    assert (value, type(value)) == (ast.literal_eval(text), type(ast.literal_eval(text)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("[a,b]", ["a", "b"]),
        ("[true,None,1]", [True, None, 1]),
        ("[{type:EMAHook}]", [{"type": "EMAHook"}]),
        ("dict(type='SGD',lr=-1)", {"type": "SGD", "lr": -1}),
        ("[dict(type=EMAHook)]", [{"type": "EMAHook"}]),
    ],
)
def test_what_shells_and_configs_write(text, value):
    assert parse_options([f"key={text}"]) == {"key": value}


@pytest.mark.parametrize(
    "text",
    ["(1,2", "{1", "[a b]", "[a/b]", "[1]#x", "{1}", "{**a}", "dict(1)", "[" * 400 + "]" * 400, "[f(1)]"],
)
def test_a_bracket_that_holds_no_python_is_refused(text):
    with pytest.raises(UserError, match="--cfg-options cannot read the value of .*quote it whole"):
        parse_options([f"key={text}"])


@pytest.mark.parametrize("item", ["no_value", "=3", "a..b=3", ".a=3", "a.=3"])
def test_an_option_without_a_key_is_refused(item):
    with pytest.raises(UserError, match="give key=value"):
        parse_options([item])


def test_one_key_has_one_value():
    assert parse_options(["a=1", "b=2", "a=1"]) == {"a": 1, "b": 2}
    with pytest.raises(UserError, match="gives a.b twice, as 1 and as 2"):
        parse_options(["a.b=1", "a.b=2"])


@pytest.mark.parametrize("name", ["train", "test", "print_config", "demo"])
def test_the_option_of_the_tools_can_be_repeated(name, tool):
    first = {"test": ["c.py", "c.pth"], "demo": []}.get(name, ["c.py"])
    args = tool(name).parse_args([*first, "--cfg-options", "a=1", "--cfg-options", "b=2", "c=3"])
    assert args.cfg_options == ["a=1", "b=2", "c=3"]
    assert tool(name).parse_args(first).cfg_options == []
