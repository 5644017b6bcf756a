"""Train a network: ``python tools/train.py CONFIG``; for several processes use tools/dist_train.sh."""

import argparse
from collections.abc import Sequence


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a network from a config.")
    parser.add_argument("config", help="config file, for example configs/danet_r18_camvid.py")
    parser.add_argument("--data", metavar="SET", help="your own data set (dataset.yaml), for a folder recipe")
    parser.add_argument("--work-dir", help="folder for checkpoints and logs (default: work_dirs/<config>)")
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
    parser.add_argument(
        "--amp",
        nargs="?",
        const="auto",
        choices=("auto", "float16", "bfloat16"),
        help="mixed precision (default type: float16 on CUDA, bfloat16 on CPU)",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate to the total batch: processes x batch_size x accumulative_counts",
    )
    parser.add_argument("--seed", type=int, help="seed of all random numbers (default: random, and logged)")
    parser.add_argument(
        "--deterministic", action="store_true", help="use algorithms only that repeat to the bit"
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
    # torchrun passes this option in some modes; the environment holds the same number
    parser.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)
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
    args = parse_arguments(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
