"""Export a network for other runtimes: ``python tools/export.py CONFIG CHECKPOINT --format onnx --out FILE``.

The network is prepared for inference and written beside FILE. There the format's own runtime runs it on
pictures of several sizes. If it gives what PyTorch gives, it gets its name. docs/export.md says the rest.
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from danseg.export.formats import FORMATS, PRECISIONS
from danseg.tool_arguments import add_cfg_options, add_data, add_trained, parse_count, parse_trained

CALIBRATION = 64  # pictures by which int8 finds its scales

if TYPE_CHECKING:
    from mmengine.config import Config

    from danseg.export.export_network import Exported


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Export a trained network for runtimes that need no danseg: as ONNX, OpenVINO, "
        "torch.export or TorchScript.",
        epilog="The file says of itself what its classes, colours, sizes, input and output are. Before it "
        "gets its name, it is compared with the network in PyTorch; one that gives other results is not left "
        "behind, and the exit status is 1.",
    )
    add_trained(parser)
    add_data(parser)
    parser.add_argument("--format", required=True, choices=FORMATS, help="kind of file")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help=f"the file, which ends as its kind does: {', '.join(one.suffix for one in FORMATS.values())}",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="type of its weights and, by its runtime's choice, of what it computes (default: float32)",
    )
    parser.add_argument(
        "--dynamic",
        action="store_true",
        help="take any number of pictures of any size (default: one picture of one size)",
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=parse_count,
        metavar=("HEIGHT", "WIDTH"),
        help="of the pictures that it takes; with --dynamic, of the largest that it is tried on (default: "
        "the config's crop_size)",
    )
    parser.add_argument(
        "--with-preprocessing",
        action="store_true",
        help="take pictures of 8 bits, (B, H, W, 3), red first, and normalise them inside (default: take "
        "what the data preprocessor gives, (B, 3, H, W))",
    )
    parser.add_argument(
        "--labels",
        action="store_true",
        help="give class ids at the pictures' size (default: the head's logits, which are coarser)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    add_cfg_options(parser)
    return parse_trained(parser, argv)


def run(args: argparse.Namespace) -> None:
    from rich.console import Console

    from danseg.apis.latency import crop_size
    from danseg.apis.model import load_model
    from danseg.apis.preparation import prepared_to_leave
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.config.config_file import load_config
    from danseg.export.export_network import check_target, export_network

    kind = FORMATS[args.format]
    check_target(args.out, kind, args.precision, overwrite=args.overwrite)
    config = load_config(args.config, parse_options(args.cfg_options), args.data)
    with Console(stderr=True).status("exporting"):
        model = load_model(config, args.checkpoint, "cpu")
        photos = _photos(config) if args.precision == "int8" else ()
        narrow = args.precision == "float16" and not kind.compresses
        window = (model.test_cfg or {}).get("crop_size")
        found = export_network(
            prepared_to_leave(model),
            args.checkpoint,
            args.out,
            kind=kind,
            size=tuple(args.size or window or crop_size(config)),
            dynamic=args.dynamic,
            precision=args.precision,
            narrow=prepared_to_leave(model, precision="float16") if narrow else None,
            with_preprocessing=args.with_preprocessing,
            labels=args.labels,
            overwrite=args.overwrite,
            photos=photos,
        )
    _print(found, args.out)


def _photos(config: "Config") -> list:
    """Pictures of the training set, by which int8 finds its scales."""
    from danseg.apis.training_pictures import training_pictures
    from danseg.errors import UserError

    try:
        return list(training_pictures(config, CALIBRATION))
    except UserError as error:
        raise UserError(f"--precision int8 needs pictures of the training set: {error}") from error


def _print(found: "Exported", out: str) -> None:
    from math import isfinite
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from danseg.engine.measuring import MIB

    description = found.description
    taken, given, size = description.input, description.output, description.size
    shape = {"N": "B" if size.batch is None else size.batch, "H": size.height or "H", "W": size.width or "W"}
    axes = ", ".join(str(shape.get(axis, axis)) for axis in taken.layout)
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{description.network}, {description.precision}: takes ({axes}) {taken.dtype}, gives {given.name}"
    )
    if found.smallest is not None:
        console.print(
            f"any number of pictures of any size, tried from {found.smallest} x {found.smallest} on"
        )
    table = Table(box=None)
    for name in ("pictures", "largest difference", "equal labels"):
        table.add_column(name, justify="right")
    for row in found.verification.rows:
        difference = "" if row.difference is None else f"{row.difference:.1e}"
        table.add_row(f"{row.batch} x {row.height} x {row.width}", difference, f"{100 * row.agreement:.3f} %")
    console.print(table)
    bound = found.verification.bound
    of_logits = ""
    if given.name == "logits" and isfinite(bound.difference):
        of_logits = f"{bound.difference:.0e} of the largest logit, "
    console.print(f"allowed: {of_logits}{100 * bound.agreement:g} % of all labels")
    console.print(f"written: {out} ({Path(out).stat().st_size / MIB:.1f} MiB)")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
