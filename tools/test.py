"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``."""

import argparse
from collections.abc import Sequence


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Evaluate a checkpoint on its config's test set.")
    parser.add_argument("config", help="config that the checkpoint was trained with")
    parser.add_argument(
        "checkpoint", help="checkpoint: a file (.pth, .safetensors) or its address (https://...)"
    )
    parser.add_argument("--data", metavar="SET", help="your own data set (dataset.yaml), for a folder recipe")
    parser.add_argument("--work-dir", help="folder for the log and the scores (default: work_dirs/<config>)")
    parser.add_argument("--tta", action="store_true", help="average over scales and flips (cfg.tta_pipeline)")
    parser.add_argument("--out", metavar="DIR", help="write the predictions as PNGs of ids into DIR")
    parser.add_argument("--show-dir", metavar="DIR", help="write image, truth and prediction into DIR")
    parser.add_argument(
        "--format-only",
        action="store_true",
        help="only write predictions for an evaluation server, to --out; labels are not needed",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change entries of the config. A value is read as Python if it is that (1e-3, (512,1024), None, "
        "['a','b'], [{'type':'EMAHook'}]), else it is text as typed; inside brackets single words are texts. "
        "\"KEY='(1)'\" is a text in any case. KEY may go through lists: param_scheduler.0.end",
    )
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help="what started the processes",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=5,
        metavar="MINUTES",
        help="warn if nothing moves for so long, and stop after twice that if data workers are why; "
        "0 waits for ever (default: %(default)g)",
    )
    parser.add_argument(
        "--collective-timeout",
        type=float,
        default=30,
        metavar="MINUTES",
        help="stop if other processes do not arrive for so long (default: %(default)g)",
    )
    parser.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.config.config_file import load_config
    from danseg.engine.config.options import configure_test
    from danseg.engine.distributed import on_every_rank, process_group
    from danseg.engine.stalled import watched
    from danseg.engine.test import test

    def configured():
        config = load_config(args.config, parse_options(args.cfg_options), args.data)
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
    args = parse_arguments(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
