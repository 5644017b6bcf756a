"""Measure a network's latency and memory: ``python tools/latency.py CONFIG``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from danseg.tool_arguments import (
    add_cfg_options,
    add_data,
    add_device,
    add_precision,
    add_trained,
    parse_count,
    parse_trained,
)

if TYPE_CHECKING:
    from danseg.apis.latency import Latency


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure latency, throughput, memory, operations and parameters of a config's network, "
        "prepared for inference as tools/predict.py prepares it, beside mmseg's own form where there is one.",
        epilog="A call takes images in memory to labels, in the config's test mode. Both sides take turns, "
        "so that a machine that slows down slows both.",
    )
    add_trained(parser, note="; without, they are random, which takes the same time")
    add_data(parser)
    parser.add_argument(
        "--size",
        nargs=2,
        type=parse_count,
        metavar=("HEIGHT", "WIDTH"),
        help="of the images (default: the config's crop_size)",
    )
    parser.add_argument(
        "--batch", type=parse_count, default=1, metavar="N", help="images a call (default: 1)"
    )
    add_precision(parser, note="; float16 needs a GPU")
    add_device(parser)
    parser.add_argument(
        "--repeat",
        type=parse_count,
        default=20,
        metavar="N",
        help="timed calls of each side (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to FILE")
    add_cfg_options(parser)
    return parse_trained(parser, argv, untrained=True)


def run(args: argparse.Namespace) -> None:
    import json

    from rich.console import Console

    from danseg.apis.latency import measure_latency
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.config.config_file import load_config
    from danseg.io.files import make_folder, whole_file

    config = load_config(args.config, parse_options(args.cfg_options), args.data)
    if args.json:
        make_folder(args.json.parent, fix="name another file with --json")
    with Console(stderr=True).status("measuring"):
        found = measure_latency(
            config,
            args.checkpoint,
            size=tuple(args.size) if args.size else None,
            batch=args.batch,
            precision=args.precision,
            device=args.device,
            repeats=args.repeat,
        )
    _print(found)
    if args.json:
        with whole_file(args.json) as part:
            part.write_text(json.dumps(found.as_dict(), indent=2) + "\n", encoding="utf-8")
        print(f"written: {args.json}")


def _print(found: "Latency") -> None:
    from rich.console import Console
    from rich.table import Table

    from danseg.apis.latency import OURS, THEIRS, WARM_UP
    from danseg.engine.measuring import MIB

    task, sides = found.task, found.sides
    height, width = task.size
    mode = (task.config.model.get("test_cfg") or {}).get("mode", "whole")
    console = Console()
    console.print(
        f"{Path(task.config.filename).stem}: {height}x{width}, batch {task.batch}, {task.precision}, "
        f"{'windows' if mode == 'slide' else 'whole images'}, {task.device}",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None)
    table.add_column("")
    for name in sides:
        table.add_column(name, justify="right")
    if THEIRS in sides:
        table.add_column(f"{OURS}/{THEIRS}", justify="right")
    rows = {
        "latency, ms (median)": ([one.seconds * 1e3 for one in sides.values()], ".4g"),
        "  lower quartile": ([one.quartiles[0] * 1e3 for one in sides.values()], ".4g"),
        "  upper quartile": ([one.quartiles[1] * 1e3 for one in sides.values()], ".4g"),
        "images a second": ([task.batch / one.seconds for one in sides.values()], ".4g"),
        "memory of a call, MiB": ([one.memory_bytes / MIB for one in sides.values()], ".1f"),
        "memory of weights, MiB": ([one.weights_bytes / MIB for one in sides.values()], ".1f"),
        "GFLOPs an image": ([one.flops / 1e9 for one in sides.values()], ".4g"),
        "parameters, millions": ([one.parameters / 1e6 for one in sides.values()], ".2f"),
    }
    for name, (values, form) in rows.items():
        ratio = [f"{values[0] / values[1]:.2f}" if values[1] else "–"] if len(values) == 2 else []
        table.add_row(name, *(format(value, form) for value in values), *ratio)
    console.print(table, highlight=False)
    rounds = len(sides[OURS].rounds)
    console.print(
        f"timed calls of each side: {rounds}, in turn, after {WARM_UP} that do not count", highlight=False
    )
    for note in found.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
