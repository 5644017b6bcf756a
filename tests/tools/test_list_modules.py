"""tools/list_modules.py prints the table of attention modules."""

import importlib.util
from pathlib import Path

import danseg.attention

ROOT = Path(__file__).resolve().parents[2]


def run(capsys, *arguments: str) -> str:
    spec = importlib.util.spec_from_file_location("tool_list_modules", ROOT / "tools" / "list_modules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(arguments)
    return capsys.readouterr().out


def test_prints_every_module(capsys):
    printed = run(capsys)
    assert not printed.startswith("|")
    for name in danseg.attention.__all__:
        assert f"\n{name}" in printed


def test_prints_markdown(capsys):
    lines = run(capsys, "--markdown").splitlines()
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert set(lines[1]) <= set("|-: ")
    for name in danseg.attention.__all__:
        assert any(line.startswith(f"| `{name}") for line in lines)
