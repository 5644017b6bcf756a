"""Segment images with a trained model, and show where its attention looks.

    python tools/predict.py CONFIG CHECKPOINT street.png --out pictures --attention 640,400

writes into ``pictures``

- ``street_labels.png``: class ids, one byte per pixel (as predicted: 0 is the first class),
- ``street_overlay.png``: the classes' colours over the image,
- ``street_attention_decode_head.pam.png``: one panel per position (with ``--attention``).

Images with sides of tens of thousands of pixels go through the network in overlapping tiles, in bounded
memory::

    python tools/predict.py CONFIG CHECKPOINT aerial.tif --out labels --tiles

writes only ``aerial_labels.tif``, a GeoTIFF with the image's georeferencing.

With and without ``--tiles``, an image is read as the config's test pipeline reads it: turned by its EXIF
orientation, so that the labels have the size of the upright picture, and refused if it has more than 8 bits a
channel, unless the pipeline keeps them (``LoadImageFromFile`` with ``color_type="unchanged"``).
"""

import argparse
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

AUTOMATIC_POSITIONS = 3


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Segment images with a trained model, and show where its attention looks.",
        epilog="Images are read as the config's test pipeline reads them: turned by their EXIF orientation, "
        "so that labels have the size of the upright picture, and refused if they have more than 8 bits that "
        "the pipeline would cut. Pictures are named after the images; a picture of the same name in the "
        "folder is replaced.",
    )
    parser.add_argument("config", help="config file the model was trained with")
    parser.add_argument(
        "checkpoint", help="trained weights: a file (.pth, .safetensors) or its address (https://...)"
    )
    parser.add_argument("--data", metavar="SET", help="your own data set (dataset.yaml), for a folder recipe")
    parser.add_argument("images", nargs="+", metavar="image", help="image files")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the pictures; made if it does not exist"
    )
    parser.add_argument(
        "--attention",
        nargs="*",
        metavar="x,y",
        help="also draw what these pixels attend to, counted from the upper left corner; default positions: "
        f"the middles of the {AUTOMATIC_POSITIONS} largest segments of different classes",
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
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="type in which the network computes (default: float32); bfloat16 is faster on GPUs and on CPUs "
        "that have instructions for it, float16 needs a GPU",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="let torch.compile compile the network: worth it for many images",
    )
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the GPU if there is one)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg import apis
    from danseg.engine.config.config_file import load_config
    from danseg.engine.out_of_memory import explaining_memory
    from danseg.errors import UserError
    from danseg.label_maps.label_png import write_label_map
    from danseg.visualization import (
        attention_figure,
        overlay,
        picture_dir,
        save_figure,
        save_image,
        segment_centres,
    )

    if args.tiles is not None and args.attention is not None:
        raise UserError(
            "--tiles cannot show attention, because its maps need the whole image; leave out one of the two"
        )
    positions = [_position(text) for text in args.attention or ()]
    twice = [stem for stem, count in Counter(Path(image).stem for image in args.images).items() if count > 1]
    if twice:
        raise UserError(
            f"several images are named {twice[0]}, so their pictures would be too; run them one by one"
        )
    with explaining_memory(*_ways_to_less_memory(args)):
        config = load_config(args.config, data=args.data)
        model = apis.load_model(config, args.checkpoint, args.device)
        model = apis.prepare_for_inference(model, precision=args.precision, compile=args.compile)
        out = picture_dir(args.out)
        palette, classes = model.dataset_meta["palette"], model.dataset_meta["classes"]
        # Few images have any, and they need none.
        warnings.filterwarnings("ignore", message="Dataset has no geotransform")
        for path in args.images:
            stem = Path(path).stem
            if args.tiles is not None:
                options = dict(tile=args.tiles, overlap=args.tiles // 4, overwrite=True, progress=True)
                print(apis.predict_large(model, path, out / f"{stem}_labels.tif", **options))
                continue
            image = apis.read_picture(model, path)
            labels = apis.predict(model, path)
            shown = {}
            if args.attention is not None:  # before anything is written: not every network has maps
                asked = positions or segment_centres(labels, AUTOMATIC_POSITIONS)
                shown = apis.attention_maps(model, path, asked)
            written = [
                write_label_map(out / f"{stem}_labels.png", labels),
                save_image(overlay(image, labels, palette), out / f"{stem}_overlay.png"),
            ]
            for module, maps in shown.items():
                figure = attention_figure(image, maps, labels=labels, classes=classes)
                written.append(save_figure(figure, out / f"{stem}_attention_{module}.png"))
            for picture in written:
                print(picture)


def _ways_to_less_memory(args: argparse.Namespace) -> Iterator[str]:
    if args.tiles is None:
        yield "predict an image in tiles (--tiles)" if args.attention is None else "take smaller images"
    else:
        yield f"take smaller tiles (--tiles, now {args.tiles})"
    if args.precision == "float32":
        yield "compute in 16 bits (--precision bfloat16)"
    yield "compute on the CPU (--device cpu)"


def _position(text: str) -> tuple[int, int]:
    from danseg.errors import UserError

    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--attention takes pixels as x,y, two whole numbers such as 640,400; got {text!r}"
        ) from None
    return x, y


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
