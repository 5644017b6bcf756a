"""tools/list_modules.py prints the table of attention modules."""

import danseg.attention


def test_prints_every_module(tool, capsys):
    tool("list_modules").main([])
    printed = capsys.readouterr().out
    assert not printed.startswith("|")
    for name in danseg.attention.__all__:
        assert f"\n{name}" in printed


def test_prints_markdown(tool, capsys):
    tool("list_modules").main(["--markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert set(lines[1]) <= set("|-: ")
    for name in danseg.attention.__all__:
        assert any(line.startswith(f"| `{name}") for line in lines)
