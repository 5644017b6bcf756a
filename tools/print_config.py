"""Print a config with its bases merged and options applied: ``python tools/print_config.py CONFIG``."""

import argparse
from collections.abc import Sequence

from danseg.engine.config import load_config, parse_options
from danseg.errors import command_line


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Print a config with its bases merged.")
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change entries of the config"
    )
    args = parser.parse_args(argv)
    print(load_config(args.config, parse_options(args.cfg_options)).pretty_text, end="")


if __name__ == "__main__":
    main()
