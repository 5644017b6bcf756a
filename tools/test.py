"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``."""

import argparse
from collections.abc import Sequence

from danseg.tool_arguments import (
    add_cfg_options,
    add_data,
    add_patience,
    add_processes,
    add_trained,
    add_tta,
    add_work_dir,
    parse_trained,
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Evaluate a checkpoint on its config's test set.")
    add_trained(parser, exported=True)
    add_data(parser)
    add_work_dir(parser, "the log and the scores")
    add_tta(parser)
    parser.add_argument("--out", metavar="DIR", help="write the predictions as PNGs of ids into DIR")
    parser.add_argument("--show-dir", metavar="DIR", help="write image, truth and prediction into DIR")
    parser.add_argument(
        "--format-only",
        action="store_true",
        help="only write predictions for an evaluation server, to --out; labels are not needed",
    )
    add_cfg_options(parser)
    add_processes(parser)
    add_patience(parser)
    return parse_trained(parser, argv)


def run(args: argparse.Namespace) -> None:
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.config.options import configure_test
    from danseg.engine.distributed import on_every_rank, process_group
    from danseg.engine.stalled import watched
    from danseg.engine.test import test
    from danseg.export.exported_config import trained_config

    def configured():
        config = trained_config(args.config, parse_options(args.cfg_options), args.data)
        configure_test(
            config,
            launcher=args.launcher,
            work_dir=args.work_dir,
            tta=args.tta,
            out=args.out,
            show_dir=args.show_dir,
            format_only=args.format_only,
        )
        return config

    with (
        watched(args.patience) as watch,
        process_group(args.launcher, watch, args.collective_timeout),
    ):
        test(on_every_rank(configured), args.checkpoint)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
