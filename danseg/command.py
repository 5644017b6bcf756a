"""The command ``danseg``: each file of tools/ is one of its sub-commands, named by :func:`command_name`.

``danseg train CONFIG`` runs ``tools/train.py CONFIG``, in this process, and ``python -m danseg`` is the same.
"""

import argparse
import ast
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from danseg.io.words import did_you_mean
from danseg.shipped import as_started, tools
from danseg.version import __version__


def main(argv: Sequence[str] | None = None) -> None:
    """Run a sub-command, or say which there are."""
    given = list(sys.argv[1:] if argv is None else argv)
    known = tools()
    if given and given[0] in known:
        run(given[0], known[given[0]], given[1:])
        return
    width = max(map(len, known), default=0)
    parser = argparse.ArgumentParser(
        prog="danseg",
        usage="danseg [-h] [--version] COMMAND ...",
        description="Semantic segmentation with attention, exact and in linear memory.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n"
        + "\n".join(f"  {name:{width}}  {summary(path)}" for name, path in known.items())
        + "\n\n'danseg COMMAND --help' tells more of each.",
    )
    parser.add_argument("--version", action="version", version=f"danseg {__version__}")
    if given and given[0].startswith("-"):
        parser.parse_args(given[:1])  # which ends here, with what was asked for or with an error
    if not known:
        parser.error("this danseg has come without its tools; install it again")
    if not given:
        parser.error("name a COMMAND; 'danseg --help' lists them")
    parser.error(f"there is no command {given[0]!r}{did_you_mean(given[0], known, cutoff=0.5)}")


def summary(path: Path) -> str:
    """What a tool is for, in a line: how its docstring begins."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].partition(": ``")[0].rstrip(".:")


def run(name: str, path: Path, arguments: Sequence[str]) -> None:
    """Run a tool's file as ``python FILE`` does: as the program that other processes of this run import."""
    program = types.ModuleType("__main__")
    program.__file__ = str(path)
    # What it says of tools, in its help as elsewhere, is said for the command: so here, too.
    before, sys.argv = sys.argv, [f"danseg {name}", *arguments]
    main, sys.modules["__main__"] = sys.modules["__main__"], program
    try:
        exec(compile(as_started(path.read_text(encoding="utf-8")), path, "exec"), vars(program))  # noqa: S102
    finally:
        sys.argv, sys.modules["__main__"] = before, main
