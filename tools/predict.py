"""Segment pictures and videos with a trained model, and show where its attention looks.

    python tools/predict.py CONFIG CHECKPOINT street.png --out pictures --attention 640,400

writes into ``pictures``

- ``street_labels.png``: class ids, one byte per pixel (as predicted: 0 is the first class),
- ``street_overlay.png``: the classes' colours over the image,
- ``street_attention_decode_head.pam.png``: one panel per position (with ``--attention``).

Folders, patterns, lists, videos and cameras go the same way, in batches; what is finished is skipped when the
same command runs again::

    python tools/predict.py CONFIG CHECKPOINT frames 'more/**/*.jpg' @list.txt drive.mp4 --out predicted \\
        --labels palette --overlay

Images with sides of tens of thousands of pixels go through the network in overlapping tiles, in bounded
memory::

    python tools/predict.py CONFIG CHECKPOINT aerial.tif --out labels --tiles

writes only ``aerial_labels.tif``, a GeoTIFF with the image's georeferencing.

With and without ``--tiles``, an image is read as the config's test pipeline reads it: turned by its EXIF
orientation, so that the labels have the size of the upright picture, and refused if it has more than 8 bits a
channel, unless the pipeline keeps them (``LoadImageFromFile`` with ``color_type="unchanged"``).
docs/prediction.md says the rest.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from danseg.tool_arguments import (
    add_cfg_options,
    add_data,
    add_device,
    add_precision,
    add_processes,
    add_trained,
    add_tta,
    parse_count,
    parse_trained,
    pixel,
)

# The paths of more pictures than these are not printed.
PRINTED = 20


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Segment pictures and videos with a trained model, and show where its attention looks.",
        epilog="Images are read as the config's test pipeline reads them: turned by their EXIF orientation, "
        "so that labels have the size of the upright picture, and refused if they have more than 8 bits that "
        "the pipeline would cut. Outputs are named after the images, below --out as the images lie below the "
        "folder that is named. A picture that cannot be read is reported and skipped, and the exit status is "
        "1. What is finished is skipped when the same command runs again.",
    )
    add_trained(parser, exported=True)
    add_data(parser)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="image",
        help="images and videos: files, folders (with all below them), patterns ('*.png', quoted; ** for any "
        "subfolders), lists of files (@NAME or NAME.txt, a path a line), or a camera (0, /dev/video0, "
        "rtsp://...)",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the outputs; made if it does not exist"
    )
    parser.add_argument(
        "--labels",
        nargs="*",
        choices=("trainIds", "labelIds", "palette", "geotiff"),
        metavar="FORM",
        help="write class ids: trainIds (0 is the first class; the default), labelIds (the data set's "
        "published ids), palette (trainIds in a PNG that shows the classes' colours), geotiff; several may "
        "be named. Without --labels, --overlay and --probabilities: trainIds and overlays of images, and "
        "overlays of videos",
    )
    parser.add_argument(
        "--overlay", action="store_true", help="write the classes' colours over the image, or the video"
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="write the probabilities of all classes as float16 (C, H, W), .npy",
    )
    parser.add_argument(
        "--attention",
        nargs="*",
        metavar="x,y",
        help="also draw what these pixels attend to, counted from the upper left corner; default positions: "
        "the middles of the 3 largest segments of different classes",
    )
    parser.add_argument(
        "--tiles",
        nargs="?",
        type=int,
        const=1024,
        metavar="PIXELS",
        help="for very large images: predict overlapping tiles of this side (default: 1024) at the image's "
        "own resolution, whatever the config says, and write only a GeoTIFF of labels",
    )
    add_tta(parser)
    add_precision(
        parser,
        note="; bfloat16 is faster on GPUs and on CPUs that have instructions for it, float16 needs a GPU",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="let torch.compile compile the network: worth it for many images",
    )
    parser.add_argument(
        "--batch-size",
        type=parse_count,
        metavar="N",
        help="images of equal size that go through the network together (default: 16, or fewer that have 2 "
        "megapixels)",
    )
    parser.add_argument(
        "--workers",
        type=parse_count,
        metavar="N",
        help="threads that read and write (default: one a processor)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="predict again what is finished, whatever it was made with"
    )
    add_cfg_options(parser)
    add_device(parser)
    add_processes(
        parser,
        share=", among which the images are shared out",
        arrive="arrive at the end",
        note="; give more time than the longest video takes",
    )
    return parse_trained(parser, argv, then="images")


def run(args: argparse.Namespace) -> None:
    from danseg.engine.distributed import process_group
    from danseg.engine.stalled import watched

    positions = _checked(args)
    with watched(0) as watch, process_group(args.launcher, watch, args.collective_timeout):
        failed = _predict(args, positions)
    if failed:
        sys.exit(1)


def _checked(args: argparse.Namespace) -> list[tuple[int, int]] | None:
    """The positions that --attention names.

    Raises:
        UserError: options do not go together.
    """
    from danseg.errors import UserError

    if args.tiles is not None and args.attention is not None:
        raise UserError(
            "--tiles cannot show attention, because its maps need the whole image; leave out one of the two"
        )
    written = [name for name in ("overlay", "probabilities") if getattr(args, name)]
    if args.tiles is not None and (written or args.labels not in (None, [], ["geotiff"])):
        raise UserError(
            f"--tiles writes a GeoTIFF of labels alone; leave out --{(written or ['labels'])[0]} or --tiles"
        )
    if args.attention is not None and args.probabilities:
        raise UserError("--attention writes no probabilities; leave out one of the two, and run twice")
    if args.tta and (args.tiles is not None or args.attention is not None):
        other = "attention" if args.tiles is None else "tiles"
        raise UserError(f"--tta averages views of whole images, of which --{other} knows one; leave out one")
    return None if args.attention is None else [pixel("--attention", text) for text in args.attention]


def _predict(args: argparse.Namespace, positions: list[tuple[int, int]] | None) -> bool:
    """Predict all, tell what became of it, and return whether something failed."""
    from mmengine.dist import get_rank

    from danseg.apis.predict_files import Options, predict_files
    from danseg.apis.sources import find_sources
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.distributed import decided_on_rank_zero, on_every_rank
    from danseg.engine.out_of_memory import explaining_memory
    from danseg.export.exported_config import trained_config

    # Few images have any, and they need none.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    found = decided_on_rank_zero(lambda: find_sources(args.images, args.out, tiles=args.tiles is not None))
    if found.left_out and get_rank() == 0:
        counted = ", ".join(f"{suffix} ({count})" for suffix, count in found.left_out.most_common())
        print(f"left out, as they are no images or videos by their suffixes: {counted}", file=sys.stderr)
    config = on_every_rank(lambda: trained_config(args.config, parse_options(args.cfg_options), args.data))
    remedies = tuple(_ways_to_less_memory(args))
    names = {field.name for field in fields(Options)} - {"attention", "remedies"}
    given = {name: value for name, value in vars(args).items() if name in names}
    options = Options(**given, attention=positions, remedies=remedies)
    with explaining_memory(*remedies):
        tally, skipped = predict_files(config, args.checkpoint, found, args.out, options)
    if get_rank() == 0:
        _report(tally, len(found.sources), skipped, Path(args.out))
    return bool(tally.failures)


def _report(tally: Any, total: int, skipped: int, out: Path) -> None:
    if total <= PRINTED:
        for path in tally.written:
            print(path)
    if skipped:
        print(
            f"{skipped} of {total} were finished and are skipped (--overwrite does them again)",
            file=sys.stderr,
        )
    if total > 1:
        print(f"{tally.predicted} of {total} predicted now, into {out}", file=sys.stderr)
    if not tally.failures:
        return
    if total == 1:
        print(f"error: {tally.failures[0]}", file=sys.stderr)
    else:
        listed = "\n".join(f"  {message}" for message in tally.failures)
        print(f"error: {len(tally.failures)} of {total} could not be predicted:\n{listed}", file=sys.stderr)


def _ways_to_less_memory(args: argparse.Namespace) -> Iterator[str]:
    if args.batch_size not in (None, 1):
        yield f"take fewer images together (--batch-size, now {args.batch_size})"
    if args.tiles is None:
        yield "predict an image in tiles (--tiles)" if args.attention is None else "take smaller images"
    else:
        yield f"take smaller tiles (--tiles, now {args.tiles})"
    if args.precision == "float32":
        yield "compute in 16 bits (--precision bfloat16)"
    yield "compute on the CPU (--device cpu)"


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line, taking_back

    command_line(taking_back(run))(args)


if __name__ == "__main__":
    main()
