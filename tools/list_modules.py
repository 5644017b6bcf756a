"""Print a table of all attention modules: ``python tools/list_modules.py``."""

import argparse
from collections.abc import Sequence

from danseg.attention_table import markdown, rows, text
from danseg.errors import command_line


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Print a table of all attention modules.")
    parser.add_argument("--markdown", action="store_true", help="as Markdown, as docs/attention.md has it")
    args = parser.parse_args(argv)
    print((markdown if args.markdown else text)(rows()), end="")


if __name__ == "__main__":
    main()
