"""Train a network: ``python tools/train.py CONFIG``; for several processes use tools/dist_train.sh."""

import argparse
from collections.abc import Sequence

from danseg.tool_arguments import (
    add_amp,
    add_cfg_options,
    add_config,
    add_data,
    add_patience,
    add_processes,
    add_work_dir,
    parse_count,
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a network from a config.")
    add_config(parser)
    add_data(parser)
    add_work_dir(parser, "checkpoints and logs")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="PATH",
        help="continue from the newest readable checkpoint of the work dir, or from PATH",
    )
    parser.add_argument(
        "--start-over",
        action="store_true",
        help="start anew in a work dir with checkpoints; these are moved to a folder in it",
    )
    parser.add_argument(
        "--apply-changes",
        action="store_true",
        help="with --resume: go on with this config's settings where the checkpoint was trained with others "
        "(rate, optimiser, schedule, data set, ...), which is refused otherwise",
    )
    add_amp(parser)
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate to the total batch: processes x batch_size x accumulative_counts",
    )
    parser.add_argument(
        "--show-attention",
        nargs="?",
        const=3,
        type=parse_count,
        metavar="N",
        help="draw prediction and attention of N validation pictures (default: 3) at every validation",
    )
    parser.add_argument("--seed", type=int, help="seed of all random numbers (default: random, and logged)")
    parser.add_argument(
        "--deterministic", action="store_true", help="use algorithms only that repeat to the bit"
    )
    add_cfg_options(parser)
    add_processes(parser)
    add_patience(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.config.config_file import load_config
    from danseg.engine.config.options import configure_training
    from danseg.engine.distributed import on_every_rank, process_group
    from danseg.engine.stalled import watched
    from danseg.engine.train import train

    def configured():
        config = load_config(args.config, parse_options(args.cfg_options), args.data)
        configure_training(
            config,
            launcher=args.launcher,
            work_dir=args.work_dir,
            seed=args.seed,
            deterministic=args.deterministic,
            amp=args.amp,
            auto_scale_lr=args.auto_scale_lr,
            show_attention=args.show_attention,
        )
        return config

    with (
        watched(args.patience) as watch,
        process_group(args.launcher, watch, args.collective_timeout),
    ):
        train(
            on_every_rank(configured),
            resume=args.resume,
            start_over=args.start_over,
            apply_changes=args.apply_changes,
        )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
