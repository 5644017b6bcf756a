"""Print a config with its bases merged and options applied: ``python tools/print_config.py CONFIG``.

What is wrong with the config follows on stderr.
"""

import argparse
from collections.abc import Sequence

from danseg.tool_arguments import add_cfg_options, add_config, add_data


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Print a config with its bases merged.")
    add_config(parser)
    add_data(parser)
    add_cfg_options(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.engine.config.agreement import check_agreement
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.config.config_file import load_config

    config = load_config(args.config, parse_options(args.cfg_options), args.data)
    print(config.pretty_text, end="", flush=True)
    check_agreement(config, *(task for task in ("train", "test") if config.get(f"{task}_cfg")))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
