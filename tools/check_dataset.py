"""Check the data sets of a config: ``python tools/check_dataset.py CONFIG``."""

import argparse
import sys
from collections.abc import Sequence

from danseg.tool_arguments import add_cfg_options, add_config, add_data

SPLITS = ("train", "val", "test")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Decode every image and label of a config's data sets, as a training does before it "
        "starts, and print what they hold. Ends with status 1 if a training or a test would refuse one of "
        "them; all that is wrong with it is then listed.",
        epilog="A data set in which files are missing is not decoded before they are there. What has passed "
        "is remembered until a file changes, for trainings too.",
    )
    add_config(parser)
    add_data(parser)
    parser.add_argument(
        "--splits", nargs="+", choices=SPLITS, default=SPLITS, help="default: all that the config has"
    )
    parser.add_argument(
        "--show", type=int, default=20, metavar="N", help="files to name of each kind of fault (default: 20)"
    )
    add_cfg_options(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.engine.config.agreement import check_agreement
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.config.config_file import load_config
    from danseg.engine.data import check_data
    from danseg.errors import UserError
    from danseg.shipped import as_started

    config = load_config(args.config, parse_options(args.cfg_options), args.data)
    splits = tuple(split for split in SPLITS if split in args.splits and config.get(f"{split}_dataloader"))
    if not splits:
        wanted = " and no ".join(f"{split}_dataloader" for split in args.splits)
        raise UserError(f"config {args.config} has no {wanted}")
    check_agreement(config, *(task for task in ("train", "test") if config.get(f"{task}_cfg")))
    errors: list[UserError] = []
    for report in check_data(config, splits, errors=errors):
        print(report)
    for text in dict.fromkeys(describe(error, args.show) for error in errors):  # splits may share one
        print(f"error: {as_started(text)}", file=sys.stderr)
    if errors:
        sys.exit(1)


def describe(error: Exception, shown: int) -> str:
    from danseg.datasets.check_report import UnusableDataset

    return error.listing(shown) if isinstance(error, UnusableDataset) else str(error)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
