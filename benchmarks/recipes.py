"""Train FCN and every head by one recipe, and put their scores, times and memory into one table.

    python -m benchmarks.recipes --set demo --minutes 60               # rendered scenes, every head, one seed
    python -m benchmarks.recipes --set camvid --seeds 0 1 2 --jobs 4   # four trainings at a time
    python -m benchmarks.recipes --set camvid --heads fcn danet --iterations 20 --out dry    # a dry run

Networks are those of ``configs/*_r18_*.py``: a ResNet-18 from random weights, on a GPU where there is one.
Run again, it keeps what is finished and goes on with the rest. ``docs/gpu.md`` explains what it needs.
"""

import argparse
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import recipe_table
from benchmarks.arguments import RESULTS
from benchmarks.recipe_configs import ROOT, datasets, heads
from benchmarks.recipe_queue import Limits, Stopped, carry_out, locked
from benchmarks.recipe_runs import STATE, Training, plan
from danseg.errors import UserError, command_line
from danseg.io.files import make_folder
from danseg.known_datasets import KNOWN_DATASETS
from danseg.tool_arguments import add_amp, add_cfg_options, parse_count


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recipes", description=__doc__.split("\n")[0], epilog=_EPILOG
    )
    networks = heads()
    parser.add_argument("--set", choices=datasets(), required=True, help="data set")
    parser.add_argument(
        "--heads",
        nargs="+",
        choices=networks,
        default=networks,
        metavar="HEAD",
        help=f"some of {', '.join(networks)} (default: all)",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="default: 0")
    parser.add_argument("--jobs", type=parse_count, default=1, help="trainings at a time (default: 1)")
    parser.add_argument(
        "--minutes", type=float, help="when these are over, running trainings end, to go on when run again"
    )
    parser.add_argument("--iterations", type=parse_count, help="length of a training (default: the recipe's)")
    add_amp(parser)
    parser.add_argument("--data-root", help="folder of the data set (default: the recipe's)")
    add_cfg_options(parser, of="every config")
    parser.add_argument(
        "--discard-checkpoints", action="store_true", help="delete those of a training that is finished"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to (default: %(default)s)")
    return parser.parse_args(argv)


_EPILOG = "Trainings and their logs stay in OUT/trainings; the table is written as JSON, CSV and Markdown."


def data_root(dataset: str, root: str | None) -> Path:
    """The folder of the data set; refused at once if it is incomplete, not once in every training.

    Raises:
        UserError: a folder is missing; the message has the command that prepares the set.
    """
    known = KNOWN_DATASETS[dataset]
    folder = Path(root).absolute() if root else ROOT / known.root
    needed = [part for split in ("train", "val") for part in known.folders[split]]
    missing = [part for part in needed if not (folder / part).is_dir()]
    if missing:
        raise UserError(
            f"{folder} has no {' and no '.join(missing)}; prepare it with {known.prepare_command(root)}, or "
            "name its place with --data-root"
        )
    return folder


@functools.cache
def environment() -> dict[str, Any]:
    """Device and versions. It imports torch, so that it is called when trainings have started."""
    import torch

    from benchmarks import report
    from danseg.engine import measuring

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # PyTorch's own setting, which trainings keep.
    rounded = device.type == "cuda" and torch.backends.cudnn.allow_tf32
    return {**measuring.environment(device), **report.versions(), "tf32_convolutions": rounded}


def place() -> str:
    """What minutes and memory of one table have in common."""
    return f"{environment()['device_name']}, torch {environment()['torch']}"


def batch_size(found: Sequence[Training]) -> int | None:
    """Images of an iteration, from the config that a training has left; None if there is none."""
    from mmengine.config import Config

    for one in found:
        for path in one.folder.glob("*/vis_data/config.py"):
            return Config.fromfile(path).train_dataloader.batch_size
    return None


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Train what fits into the time, print the table and write it."""
    began = time.monotonic()
    args = parse_arguments(argv)
    root = data_root(args.set, args.data_root)
    folder = make_folder(args.out, "the folder of the results", "choose --out").absolute() / "trainings"
    with locked(folder) as lock, Stopped() as stopped:
        found = _train(args, root, began, folder, lock, stopped)
        about = _about(args, found)
        made = recipe_table.rows(found)
        console = Console(width=max(Console().width, 160))
        recipe_table.print_tables(made, about, console)
        for path in recipe_table.save(made, about, args.out, _name(args, about)):
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    if stopped.signal:
        sys.exit(128 + stopped.signal)
    failed = [one for one in found if one.outcome.failed]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(found)} trainings failed, the first is {failed[0].name}: "
            f"{failed[0].outcome.note}; see {failed[0].said}"
        )


def _train(
    args: argparse.Namespace, root: Path, began: float, folder: Path, lock: int, stopped: Stopped
) -> list[Training]:
    """Run the trainings; return all of the table, with what has become of them."""
    settings = {"iterations": args.iterations, "amp": args.amp, "cfg_options": args.cfg_options}
    if any(folder.glob(f"{args.set}_*/{STATE}")):  # else no minutes can be another machine's
        settings["place"] = place()
    found = plan(args.set, args.heads, args.seeds, folder, settings)
    limits = Limits(args.jobs, None if args.minutes is None else began + 60 * args.minutes)
    options = [*(["--amp", args.amp] if args.amp else []), "--cfg-options", f"data_root={root}"]
    options += [f"{loader}_dataloader.num_workers={limits.workers}" for loader in ("train", "val")]
    options += [f"max_iters={args.iterations}"] if args.iterations else []

    def learn_place() -> None:
        for one in found:
            one.outcome.settings["place"] = place()

    def say(line: str) -> None:
        print(f"{(time.monotonic() - began) / 60:6.2f} min  {line}", flush=True)

    carry_out(
        found,
        [*options, *args.cfg_options],
        limits,
        lock,
        discard_checkpoints=args.discard_checkpoints,
        stopped=stopped,
        while_waiting=learn_place,
        log=say,
    )
    return found


def _about(args: argparse.Namespace, found: Sequence[Training]) -> dict[str, Any]:
    """What the figures of the table depend on."""
    about = environment()
    full = "float32, convolutions in TF32" if about["tf32_convolutions"] else "float32"
    auto = "float16" if about["device"] == "cuda" else "bfloat16"
    return {
        **about,
        "set": args.set,
        "batch": batch_size(found),
        "precision": {None: full, "auto": auto}.get(args.amp, args.amp),
        "jobs": args.jobs,
        "workers": Limits(args.jobs).workers,
        "cfg_options": args.cfg_options,
    }


def _name(args: argparse.Namespace, about: dict[str, Any]) -> str:
    """The name of the files; it tells what is not the recipes' own."""
    from benchmarks.report import stem

    length = f"_{args.iterations}iterations" if args.iterations else ""
    return stem(f"recipes-{args.set}", about, length + (f"_{about['precision']}" if args.amp else ""))


if __name__ == "__main__":
    main()
