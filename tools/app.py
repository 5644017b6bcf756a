"""Show where networks look, on a page: ``python tools/app.py CONFIG CHECKPOINT [CONFIG CHECKPOINT]``.

Choose a picture and click a pixel: what it is classed as, and where the network attends from there. Two
networks, or two checkpoints of one, stand side by side on the same pixel. docs/app.md says the rest.
"""

import argparse
import os
from collections.abc import Sequence

from danseg.model_files import CHECKPOINTS, is_model_file
from danseg.tool_arguments import (
    add_cfg_options,
    add_data,
    add_device,
    add_listening,
    add_precision,
    parse_count,
)

MOST = 2  # networks that are shown together


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Show where networks look, on a page: choose a picture, click a pixel.",
        epilog="SIGTERM and Ctrl-C stop it. Visitors' pictures are deleted when they leave, or then. "
        "The pictures to choose from are those of the set that the first config tests on.",
    )
    parser.add_argument(
        "networks",
        nargs="+",
        metavar="CONFIG CHECKPOINT",
        help="a config and its trained weights, or one file that carries both "
        f"({', '.join(CHECKPOINTS)}); twice for two networks on the same pixel",
    )
    add_data(parser)
    add_listening(parser, port=7860, seconds=120)
    parser.add_argument(
        "--max-kept",
        type=parse_count,
        default=2**31,
        metavar="N",
        help="bytes of forward passes that are kept in memory; the longest unused go, and are made again if "
        "they are asked for (default: %(default)s)",
    )
    parser.add_argument(
        "--share",
        action="store_true",
        help="ask Gradio's servers for a public address that leads to this page; whoever knows it can use it",
    )
    add_precision(parser, note="; float16 needs a GPU")
    add_device(parser)
    add_cfg_options(parser, of="all configs")
    args = parser.parse_intermixed_args(argv)
    args.networks = _pairs(parser, args.networks)
    return args


def _pairs(parser: argparse.ArgumentParser, typed: Sequence[str]) -> list[tuple[str, str]]:
    """Configs with their checkpoints; a file that carries both is named twice."""
    pairs, waiting = [], list(typed)
    while waiting:
        config = waiting.pop(0)
        if is_model_file(config):
            pairs.append((config, config))
        elif waiting and is_model_file(waiting[0]):
            pairs.append((config, waiting.pop(0)))
        else:
            parser.error(
                f"name the checkpoint of {config} behind it: CONFIG CHECKPOINT, or a file that carries its "
                "config, alone"
            )
    if len(pairs) > MOST:
        parser.error(f"{len(pairs)} networks are too many to stand side by side; name at most {MOST}")
    return pairs


def run(args: argparse.Namespace) -> None:
    # OpenCV reads it when it is imported. The header was looked at before; this is for one that deceives.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(args.max_pixels))
    from danseg.app import PageLimits, launch
    from danseg.engine.config.cfg_options import parse_options
    from danseg.export.exported_config import trained_config

    options = parse_options(args.cfg_options)
    launch(
        [(trained_config(config, options, args.data), checkpoint) for config, checkpoint in args.networks],
        PageLimits(args.max_bytes, args.max_pixels, args.timeout, args.queue, args.max_kept),
        host=args.host,
        port=args.port,
        device=args.device,
        precision=args.precision,
        share=args.share,
    )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
