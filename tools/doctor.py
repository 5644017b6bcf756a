"""Say what danseg runs on here, what is broken and what is missing: ``python tools/doctor.py``."""

import argparse
import sys
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Say what danseg runs on here: Python, PyTorch, GPUs and their driver, processor and "
        "memory, the line of mmseg; what is broken, and what is missing for which extra, with the command "
        "that installs it. Ends with status 1 if something is broken without which nothing can be trained.",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.doctor import report

    if report():
        sys.exit(1)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
