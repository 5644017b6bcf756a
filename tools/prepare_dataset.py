"""Bring a data set into the folders that the configs expect, check it, and print what it holds.

python tools/prepare_dataset.py cityscapes [ROOT] [--cache]
python tools/prepare_dataset.py ade20k SOURCE [ROOT] [--cache]
python tools/prepare_dataset.py camvid SOURCE [ROOT] [--link] [--cache]
python tools/prepare_dataset.py demo [ROOT] [--train N] [--val N] [--height H] [--width W] [--seed S]
                                     [--cache]
"""

import argparse
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Bring a data set into the folders that the configs expect, check it, and print what it "
        "holds. Existing files are kept; nothing is overwritten."
    )
    commands = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")

    command = commands.add_parser("cityscapes", help="write the trainIds labels of an unpacked Cityscapes")
    command.add_argument(
        "root",
        nargs="?",
        default="data/cityscapes",
        help="folder with leftImg8bit and gtFine (default: %(default)s)",
    )

    command = commands.add_parser("ade20k", help="unpack or copy the ADE20K scene parsing benchmark")
    command.add_argument("source", help="ADEChallengeData2016.zip, or the folder it unpacks to")
    command.add_argument(
        "root", nargs="?", default="data/ade/ADEChallengeData2016", help="default: %(default)s"
    )

    command = commands.add_parser("camvid", help="copy CamVid")
    command.add_argument("source", help="folder with train, trainannot, val, valannot [, test, testannot]")
    command.add_argument("root", nargs="?", default="data/camvid", help="default: %(default)s")
    command.add_argument("--link", action="store_true", help="make symbolic links, not copies")

    command = commands.add_parser("demo", help="render street scenes in the Cityscapes layout")
    command.add_argument("root", nargs="?", default="data/demo", help="default: %(default)s")
    for name, default, meaning in (
        ("train", 200, "training frames"),
        ("val", 40, "validation frames"),
        ("height", 256, "pixels"),
        ("width", 512, "pixels"),
        ("seed", 0, "each seed gives a different set"),
    ):
        command.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: %(default)s)")

    for command in commands.choices.values():
        command.add_argument(
            "--cache",
            action="store_true",
            help="also unpack the training frames, uncompressed, so that training reads them faster "
            "(if the set is prepared already, give its folder as the source)",
        )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.datasets import prepare

    arguments = vars(args)
    for report in getattr(prepare, arguments.pop("dataset"))(**arguments):
        print(report)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
