"""Bring a data set into the tree the configs expect, check it, and print what it holds.

python tools/prepare_dataset.py cityscapes [ROOT] [--cache]
python tools/prepare_dataset.py ade20k SOURCE [ROOT] [--cache]
python tools/prepare_dataset.py camvid SOURCE [ROOT] [--link] [--cache]
python tools/prepare_dataset.py demo [ROOT] [--train N] [--val N] [--height H] [--width W] [--seed S]
                                     [--cache]
"""

import argparse
from collections.abc import Sequence

from danseg.errors import command_line
from danseg.known_datasets import KNOWN_DATASETS
from danseg.rendered.street_set import HEIGHT, TRAIN_FRAMES, VAL_FRAMES, WIDTH


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Bring a data set into the tree the configs expect, check it, and print what it holds. "
        "What is there already is kept; nothing is overwritten."
    )
    commands = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")

    command = commands.add_parser("cityscapes", help="write the trainIds labels of an unpacked Cityscapes")
    command.add_argument(
        "root",
        nargs="?",
        default=KNOWN_DATASETS["cityscapes"].root,
        help="folder with leftImg8bit and gtFine (default: %(default)s)",
    )

    command = commands.add_parser("ade20k", help="unpack or copy the ADE20K scene parsing benchmark")
    command.add_argument("source", help="ADEChallengeData2016.zip, or the folder it unpacks to")
    command.add_argument(
        "root", nargs="?", default=KNOWN_DATASETS["ade20k"].root, help="default: %(default)s"
    )

    command = commands.add_parser("camvid", help="copy CamVid")
    command.add_argument("source", help="folder with train, trainannot, val, valannot [, test, testannot]")
    command.add_argument(
        "root", nargs="?", default=KNOWN_DATASETS["camvid"].root, help="default: %(default)s"
    )
    command.add_argument("--link", action="store_true", help="make symbolic links, not copies")

    command = commands.add_parser("demo", help="render street scenes in the Cityscapes layout")
    command.add_argument("root", nargs="?", default=KNOWN_DATASETS["demo"].root, help="default: %(default)s")
    for name, default, meaning in (
        ("train", TRAIN_FRAMES, "training frames"),
        ("val", VAL_FRAMES, "validation frames"),
        ("height", HEIGHT, "pixels"),
        ("width", WIDTH, "pixels"),
        ("seed", 0, "each gives another set"),
    ):
        command.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: %(default)s)")

    for command in commands.choices.values():
        command.add_argument(
            "--cache",
            action="store_true",
            help="also unpack the training frames, uncompressed, for training to read "
            "(of a set that is there already, give its folder as the source)",
        )
    return parser.parse_args(argv)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    arguments = vars(parse_args(argv))
    from danseg.datasets import prepare  # imports mmseg, which a wrong argument need not wait for

    for report in getattr(prepare, arguments.pop("dataset"))(**arguments):
        print(report)


if __name__ == "__main__":
    main()
