"""Measure a network's attention over a data set, and tell dead heads from living ones.

    python tools/attention_statistics.py CONFIG CHECKPOINT --split val --images 50

prints a row for each view of each attention module: how evenly and how far its maps look, how gates and
branches spread, its learned factor, how many labels change without it, and a verdict.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danseg.tool_arguments import (
    add_cfg_options,
    add_data,
    add_device,
    add_precision,
    add_trained,
    number,
    parse_count,
    parse_trained,
)

if TYPE_CHECKING:
    from danseg.apis.attention_statistics import AttentionStatistics


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure what each attention module of a network does over some pictures of its data "
        "set, and tell dead heads from living ones. Labels are not needed.",
        epilog="Each picture passes through the network as a whole, once, and once more without each module.",
    )
    add_trained(parser)
    add_data(parser)
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="val",
        help="whose pictures, as the config names them (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        type=parse_count,
        default=20,
        metavar="N",
        help="how many pictures, spread evenly over the split (default: %(default)s)",
    )
    parser.add_argument(
        "--positions",
        type=number(int, 2),
        default=32,
        metavar="N",
        help="how many positions to draw in each picture (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=number(int, 0), default=0, help="of the drawn positions (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write all figures to a JSON file")
    add_precision(parser)
    add_device(parser)
    add_cfg_options(parser)
    args = parse_trained(parser, argv)
    if args.out and args.out.suffix.lower() != ".json":
        parser.error(f"--out is a file of JSON: name one that ends in .json, got {args.out}")
    return args


def run(args: argparse.Namespace) -> None:
    import json

    from danseg.apis.attention_statistics import RULE, attention_statistics
    from danseg.apis.exploration import require_attention_to_show
    from danseg.apis.model import load_model
    from danseg.apis.preparation import ready_for_inference
    from danseg.apis.split_pictures import split_pictures
    from danseg.engine.config.cfg_options import parse_options
    from danseg.export.exported_config import trained_config
    from danseg.io.files import make_folder, whole_file
    from danseg.io.parallel import progress_bar

    config = trained_config(args.config, parse_options(args.cfg_options), args.data)
    if args.out:
        make_folder(args.out.parent, fix="name another file with --out")
    model = load_model(config, args.checkpoint, args.device)
    require_attention_to_show(model)
    pictures = split_pictures(config, args.split, args.images)
    model = ready_for_inference(model, precision=args.precision)
    with progress_bar() as bar:
        found = attention_statistics(
            model, bar.track(pictures, description="exploring"), positions=args.positions, seed=args.seed
        )
    _print(found)
    print(RULE)
    if args.out:
        said = dict(
            config=args.config, checkpoint=args.checkpoint, split=args.split, precision=args.precision
        )
        with whole_file(args.out) as part:
            text = json.dumps({**said, **found.as_dict()}, indent=2, ensure_ascii=False)
            part.write_text(text + "\n", encoding="utf-8")
        print(f"written: {args.out}")


def _print(found: "AttentionStatistics") -> None:
    from rich.console import Console
    from rich.table import Table

    from danseg.visualization.attention_effect import share_in_words

    table = Table(box=None)
    for name in ("view", "γ", "labels changed", "kind", "what it shows", "verdict"):
        table.add_column(
            name, justify="right" if name in ("γ", "labels changed") else "left", overflow="fold"
        )
    for module in found.modules:
        scale = "–" if module.scale is None else f"{module.scale:.3g}"
        for index, view in enumerate(module.views):
            of_module = [scale, share_in_words(module.changed)] if index == 0 else ["", ""]
            table.add_row(view.key, *of_module, view.kind, _in_words(view.figures), view.verdict)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has no edge at which lines would have to be broken
    console.print(
        f"{found.images} pictures, {found.positions} positions in each, seed {found.seed}", highlight=False
    )
    console.print(table, highlight=False, markup=False)


def _in_words(figures: dict[str, Any]) -> str:
    """The figures of a view in one line."""
    said = []
    if "entropy_spread" in figures:
        said.append(f"entropy {figures['entropy']:.2f} ± {figures['entropy_spread']:.2f}")
    elif "entropy" in figures:
        said.append(f"entropy {figures['entropy']:.2f}")
    if "distance" in figures:
        said.append(f"distance {figures['distance']:.2f} ({figures['distance_pixels']:.0f} px)")
    if "difference" in figures:
        said.append(f"difference {figures['difference']:.2f}")
    if "mean" in figures:
        said.append(f"mean {figures['mean']:.3g}")
    said += [f"{name}: {share:.2f}" for name, share in figures.get("parts", {}).items()]
    if "spread" in figures:
        said.append(f"spread {figures['spread']:.2g}")
    between = figures.get("between_pictures")
    if between is not None and between == between:  # nan of a single picture
        said.append(f"from picture to picture {between:.2g}")
    return ", ".join(said)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line, taking_back

    command_line(taking_back(run))(args)


if __name__ == "__main__":
    main()
