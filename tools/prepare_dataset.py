"""Bring a data set into the folders that the configs expect, check it, and print what it holds.

python tools/prepare_dataset.py cityscapes [ROOT] [--cache]
python tools/prepare_dataset.py ade20k SOURCE [ROOT] [--cache]
python tools/prepare_dataset.py camvid SOURCE [ROOT] [--link] [--cache]
python tools/prepare_dataset.py voc2012 SOURCE [ROOT] [--link] [--cache]
python tools/prepare_dataset.py demo [ROOT] [--train N] [--val N] [--height H] [--width W] [--seed S]
                                     [--cache]
python tools/prepare_dataset.py aerial SOURCE --out FOLDER [--set potsdam|loveda] [--tile 512] [--overlap 128]
python tools/prepare_dataset.py folder IMAGES MASKS --out FOLDER [--classes a,b,c] [--map 255:1 ...]
                                       [--colours FILE] [--mask-suffix _mask] [--val 0.2 | --val-images DIR]
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

    command = commands.add_parser("voc2012", help="copy Pascal VOC 2012's segmentation")
    command.add_argument("source", help="the folder VOCdevkit that VOCtrainval_11-May-2012.tar unpacks to")
    command.add_argument("root", nargs="?", default="data/VOCdevkit/VOC2012", help="default: %(default)s")
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

    for command in commands.choices.values():  # those in the configs' folders
        command.add_argument(
            "--cache",
            action="store_true",
            help="also unpack the training frames, uncompressed, so that training reads them faster "
            "(if the set is prepared already, give its folder as the source)",
        )
    command = commands.add_parser("aerial", help="cut large pictures and their labels into tiles")
    command.add_argument(
        "source", help="folder of a dataset.yaml; with --set, of an unpacked Potsdam or LoveDA"
    )
    command.add_argument("--out", required=True, help="folder for the tiles and their dataset.yaml")
    command.add_argument(
        "--set", dest="published", choices=("potsdam", "loveda"), help="the source is this published set"
    )
    command.add_argument("--tile", type=int, default=512, help="side in pixels (default: %(default)s)")
    command.add_argument(
        "--overlap", type=int, default=128, help="of training tiles, in pixels (default: %(default)s)"
    )
    _add_folder(commands.add_parser("folder", help="describe your own images with masks or polygons"))
    return parser.parse_args(argv)


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Describe your own images and labels in OUT/dataset.yaml, which --data of the other tools takes; "
        "check them, and print what they hold. Your files stay as and where they are. Labels are masks of "
        "ids (grey or palette PNGs) or of colours, polygons of LabelMe, COCO or CVAT for images, or an "
        "export in VOC's form; their content tells. docs/own_data.md has an example of each."
    )
    command.add_argument("images", help="folder of the images; subfolders are searched")
    command.add_argument(
        "masks",
        help="folder of masks or LabelMe's files, or the file of annotations (COCO's JSON, CVAT's XML)",
    )
    command.add_argument("--out", required=True, help="folder for dataset.yaml, lists and drawn masks")
    command.add_argument("--classes", help="names of the classes 0, 1, ...: a,b,c, or a file with one a line")
    command.add_argument(
        "--map",
        dest="remap",
        action="extend",
        nargs="+",
        default=[],
        metavar="ID:CLASS",
        help="ids of masks, or labels of polygons, that are another class: 255:1, 7:road, or 0:ignore for "
        "none (without it ids are the classes, and 255 is none)",
    )
    command.add_argument("--colours", help="file of the classes' colours, with name,red,green,blue a line")
    command.add_argument("--image-suffix", default="", help="what images' names end in, such as _leftImg8bit")
    command.add_argument("--mask-suffix", default="", help="what masks' names end in, such as _mask")
    split = command.add_mutually_exclusive_group()
    split.add_argument(
        "--val",
        type=float,
        default=0.2,
        help="share of the images that validate, chosen by their content, so that names and order do not "
        "matter (default: %(default)s)",
    )
    split.add_argument("--val-images", metavar="DIR", help="or the folder of those that do")
    command.add_argument(
        "--test",
        type=float,
        metavar="SHARE",
        help="share of the images to test on, chosen likewise (default: none)",
    )
    command.add_argument(
        "--val-masks", metavar="DIR", help="and of their masks, if --val-images does not lie below IMAGES"
    )
    command.add_argument(
        "--group",
        metavar="PATTERN",
        help="regular expression: images in whose paths it matches the same text, such as a video's name, "
        "stay in one split",
    )
    command.add_argument(
        "--outside",
        default="background",
        metavar="CLASS",
        help="class of pixels outside of all polygons, or 'ignore' (default: %(default)s)",
    )
    command.add_argument(
        "--allow-unpaired", action="store_true", help="leave out images and masks without a partner"
    )


def run(args: argparse.Namespace) -> None:
    from danseg.datasets import prepare

    arguments = vars(args)
    for report in getattr(prepare, arguments.pop("dataset"))(**arguments):
        print(report)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line, taking_back

    command_line(taking_back(run))(args)


if __name__ == "__main__":
    main()
