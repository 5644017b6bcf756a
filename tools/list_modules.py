"""Print a table of all attention modules: ``python tools/list_modules.py``."""

import argparse
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Print a table of all attention modules.")
    parser.add_argument("--markdown", action="store_true", help="as Markdown, as in docs/attention.md")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.attention_table import markdown, rows, text

    print((markdown if args.markdown else text)(rows()), end="")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
