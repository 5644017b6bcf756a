"""Every import respects the layers of CONTRIBUTING.md. ``python tests/test_layers.py`` counts the arrows."""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Arrow(NamedTuple):
    """An import of another part of danseg, or of another package."""

    place: str  # file:line
    part: str  # that the file belongs to: a folder of danseg, a file beside them, or tools
    target: str  # a part of danseg, or a package


class Layer(NamedTuple):
    parts: tuple[str, ...]
    packages: frozenset[str] | None  # other packages that it may import; None for any


def layers() -> list[Layer]:
    """The rows of the table, from the top."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Layers\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    quoted = [re.findall(r"`(?:danseg/)?([\w.]+)/?`", parts) for parts, _, _ in rows]
    allowed = [
        None if packages.strip() == "any package" else frozenset(re.findall(r"`(\w+)`", packages))
        for _, _, packages in rows
    ]
    return [Layer(tuple(parts), packages) for parts, packages in zip(quoted, allowed, strict=True)]


def files() -> list[Path]:
    return sorted([*ROOT.glob("danseg/**/*.py"), *ROOT.glob("tools/*.py")])


def part_of(path: Path) -> str:
    top, *inner = path.relative_to(ROOT).parts
    return top if top == "tools" else inner[0]


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported, in functions too, or reached through ``danseg.``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"line {node.lineno}: imports are written in full"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif (
            isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "danseg"
        ):
            yield node.lineno, f"danseg.{node.attr}"


def arrows() -> list[Arrow]:
    """Every import of danseg and the tools, but for the standard library's and those within one part."""
    found = []
    for path in files():
        for line, name in imported(ast.parse(path.read_text())):
            target, *inner = name.split(".")
            if target == "danseg" and inner:
                folder, file = (ROOT / "danseg" / f"{inner[0]}{suffix}" for suffix in ("", ".py"))
                target = inner[0] if folder.is_dir() else file.name if file.is_file() else "__init__.py"
            if target not in (part_of(path), "danseg") and target not in sys.stdlib_module_names | {
                "__future__"
            }:
                found.append(Arrow(f"{path.relative_to(ROOT)}:{line}", part_of(path), target))
    return found


def wrong(arrows: list[Arrow], layers: list[Layer]) -> list[Arrow]:
    """Those that point up, both ways within a row, or to a package that is not for their layer."""
    floor = {part: number for number, layer in enumerate(layers) for part in layer.parts}
    pairs = {(arrow.part, arrow.target) for arrow in arrows}

    def is_wrong(arrow: Arrow) -> bool:
        here = floor[arrow.part]
        if arrow.target not in floor:
            packages = layers[here].packages
            return packages is not None and arrow.target not in packages
        there = floor[arrow.target]
        return there < here or there == here and (arrow.target, arrow.part) in pairs

    return [arrow for arrow in arrows if is_wrong(arrow)]


def test_the_table_names_every_part_once():
    named = Counter(part for layer in layers() for part in layer.parts)
    assert named == Counter({part_of(path) for path in files()})


def test_every_import_points_down():
    found = arrows()
    assert len(found) > 100
    assert not (up := wrong(found, layers())), "\n".join(
        f"{a.place}: {a.part} imports {a.target}" for a in up
    )


def test_what_points_up_is_found():
    table = [Layer(("top",), None), Layer(("left", "right"), None), Layer(("low",), frozenset({"torch"}))]
    down = [Arrow("a", "top", "low"), Arrow("b", "left", "right"), Arrow("c", "low", "torch")]
    assert wrong(down, table) == []
    up, back, other = Arrow("d", "low", "left"), Arrow("e", "right", "left"), Arrow("f", "low", "numpy")
    assert wrong([*down, up, other], table) == [up, other]
    assert wrong([*down, back], table) == [down[1], back]
    source = (
        "import danseg\ndef f():\n    from danseg.ops import attention\n    return danseg.heads.DANetHead\n"
    )
    names = [(1, "danseg"), (3, "danseg.ops.attention"), (4, "danseg.heads")]
    assert sorted(imported(ast.parse(source))) == names


def test_no_two_files_share_a_name():
    names = Counter(path.name for path in ROOT.glob("danseg/**/*.py") if path.name != "__init__.py")
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []


if __name__ == "__main__":
    found, up = arrows(), wrong(arrows(), layers())
    print(
        *(f"{arrow.place}: {arrow.part} imports {arrow.target}" for arrow in up),
        sep="\n",
        end="\n" * bool(up),
    )
    print(
        f"{len(found)} imports between the parts of danseg and of other packages; {len(up)} of them point up"
    )
