"""List the recipes that come with danseg, or search them: ``python tools/configs.py [WORDS]``."""

import argparse
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="List the recipes that come with danseg: name, schedule, crop, and the mIoU that is "
        "published for the recipe, at one scale and at several. Every tool that takes a config takes a name "
        "from this list.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="only recipes whose name or description has all of these, in any case: danet cityscapes",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.recipes import recipes
    from danseg.recipes_table import described, matching, table
    from danseg.shipped import shipped

    found = matching(recipes(shipped("configs")), args.words)
    print(described(found[0]) if len(found) == 1 else table(found))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
