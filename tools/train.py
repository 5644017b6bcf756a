"""Train a network: ``python tools/train.py CONFIG``; several processes through tools/dist_train.sh."""

import argparse
from collections.abc import Sequence

from mmengine.config import Config

from danseg.engine.config import load_config, parse_options
from danseg.engine.distributed import LAUNCHERS, on_rank_zero, process_group
from danseg.engine.precision import use_mixed_precision
from danseg.engine.train import train
from danseg.engine.work_dir import choose_work_dir
from danseg.errors import UserError, command_line


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a network from a config.")
    parser.add_argument("config", help="config file, for example configs/danet_r18_camvid.py")
    parser.add_argument("--work-dir", help="folder for checkpoints and logs (default: work_dirs/<config>)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="PATH",
        help="continue from the newest readable checkpoint of the work dir, or from PATH",
    )
    parser.add_argument(
        "--amp",
        nargs="?",
        const="auto",
        choices=("auto", "float16", "bfloat16"),
        help="mixed precision (default type: float16 on CUDA, bfloat16 on CPU)",
    )
    parser.add_argument(
        "--auto-scale-lr", action="store_true", help="scale the learning rate to the actual total batch size"
    )
    parser.add_argument("--seed", type=int, help="seed of every random number (default: drawn, and logged)")
    parser.add_argument("--deterministic", action="store_true", help="use deterministic algorithms only")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change entries of the config"
    )
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="what started the processes")
    # torchrun passes the option in some modes; the environment says the same
    parser.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def configured(args: argparse.Namespace) -> Config:
    """The config with the command line's options in it."""
    config = load_config(args.config, parse_options(args.cfg_options))
    config.launcher = args.launcher
    config.work_dir = choose_work_dir(config, args.work_dir)
    randomness = dict(config.get("randomness") or {"seed": None})
    if args.seed is not None:
        randomness["seed"] = args.seed
    if args.deterministic:
        randomness["deterministic"] = True
    config.randomness = randomness
    if args.amp:
        use_mixed_precision(config, args.amp)
    if args.auto_scale_lr:
        if not (config.get("auto_scale_lr") or {}).get("base_batch_size"):
            raise UserError(
                f"--auto-scale-lr: {args.config} does not say for which total batch its learning rate is; "
                "set --cfg-options auto_scale_lr.base_batch_size=N"
            )
        config.auto_scale_lr.enable = True
    return config


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    with process_group(args.launcher):
        on_rank_zero(lambda: configured(args))  # one message about a bad config, not one a process
        train(configured(args), resume=args.resume)


if __name__ == "__main__":
    main()
