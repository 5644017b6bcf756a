"""Look at a config's data as the network sees them, and count its classes.

    python tools/browse.py CONFIG --out sheet.png

draws the first samples of a training, augmented and padded, each beside its label, and prints how many pixels
and images every class has. With ``--seed`` they are those that ``tools/train.py`` with this seed begins with.
"""

import argparse
from collections.abc import Sequence

from danseg.tool_arguments import add_cfg_options, add_config, add_data, number

MOST = 256  # samples on a sheet


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Draw a contact sheet of a config's samples with their labels, as the network sees them, "
        "and print how many pixels and images every class has.",
        epilog="The data are checked first, as by tools/check_dataset.py, which counts the classes.",
    )
    add_config(parser)
    add_data(parser)
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="train", help="default: %(default)s"
    )
    parser.add_argument(
        "--count",
        type=number(int, 1, MOST),
        default=16,
        metavar="N",
        help="samples to draw (default: %(default)s)",
    )
    parser.add_argument("--out", required=True, metavar="PNG", help="the sheet; an existing file is replaced")
    parser.add_argument(
        "--seed",
        type=int,
        help="as of tools/train.py: the samples that a training in one process sees first (default: the "
        "config's, or else 0)",
    )
    add_cfg_options(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from danseg.apis.browsing import browse
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.config.config_file import load_config
    from danseg.errors import UserError
    from danseg.io.files import make_folder

    if Path(args.out).suffix.lower() != ".png":
        raise UserError(f"--out {args.out}: the sheet is a PNG; name a file that ends in .png")
    make_folder(Path(args.out).parent, "the folder for the sheet", "choose another --out")
    config = load_config(args.config, parse_options(args.cfg_options), args.data)
    for text in browse(config, args.out, split=args.split, count=args.count, seed=args.seed):
        print(text)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line, taking_back

    command_line(taking_back(run))(args)


if __name__ == "__main__":
    main()
