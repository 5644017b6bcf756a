"""Convert weights of other projects into danseg's: ``python tools/convert.py --from danet FILE --out FILE``.

A config for the network is written beside the weights.
"""

import argparse
from collections.abc import Sequence

from danseg.tool_arguments import add_cfg_options

# Those of danseg.convert, which imports torch.
SOURCES = ("mmseg", "danet", "ccnet", "semseg", "torchvision", "timm", "epsanet", "resnest")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Convert a checkpoint of another project into one of danseg's, and write the config that "
        "its network needs beside it. Every tensor gets its place, or nothing is written. Nothing in the "
        "file is run."
    )
    parser.add_argument("file", help="the checkpoint, or its address (https://...)")
    parser.add_argument(
        "--from", dest="source", required=True, choices=SOURCES, help="whose layout it has (docs/weights.md)"
    )
    parser.add_argument(
        "--out", required=True, help="the checkpoint to write (.pth); its config gets this name with .py"
    )
    parser.add_argument(
        "--config",
        help="what the new config stands on: a recipe's name or a config file (default: the nearest recipe)",
    )
    add_cfg_options(parser, of="the new config, for what tensors do not say")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.convert import convert
    from danseg.engine.config.cfg_options import parse_options

    options = parse_options(args.cfg_options)
    print(convert(args.source, args.file, args.out, args.config, options).described(), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
