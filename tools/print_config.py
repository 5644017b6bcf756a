"""Print a config with its bases merged and options applied: ``python tools/print_config.py CONFIG``.

What is wrong with the config follows on stderr.
"""

import argparse
from collections.abc import Sequence


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Print a config with its bases merged.")
    parser.add_argument("config", help="config file")
    parser.add_argument("--data", metavar="SET", help="your own data set (dataset.yaml), for a folder recipe")
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
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.engine.config.agreement import check_agreement
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.config.config_file import load_config

    config = load_config(args.config, parse_options(args.cfg_options), args.data)
    print(config.pretty_text, end="", flush=True)
    check_agreement(config, *(task for task in ("train", "test") if config.get(f"{task}_cfg")))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
