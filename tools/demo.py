"""A small complete run: render street scenes, train a DANet on them, evaluate it, draw what it sees.

    python tools/demo.py

The demo uses again what an earlier run with the same settings left: the rendered set and a finished training.
It continues a training that was interrupted.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from danseg.tool_arguments import add_cfg_options, add_work_dir

if TYPE_CHECKING:
    from mmengine.config import Config

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "danet_r18_demo.py"
STATE = "demo.json"  # in the work dir: what was trained there, and whether it was finished
SEED = 0
PICTURES = 4
POSITIONS = 3


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Render street scenes, train a DANet on them, evaluate it, draw what it sees.",
        epilog="Pictures of an earlier demo in the same work dir are replaced.",
    )
    add_work_dir(parser, "checkpoints, logs and pictures", "work_dirs/danet_r18_demo")
    parser.add_argument("--retrain", action="store_true", help="train again, even if nothing has changed")
    add_cfg_options(parser, of=f"configs/{CONFIG.name}")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.config.config_file import load_config
    from danseg.engine.config.options import configure_test, configure_training
    from danseg.engine.test import test
    from danseg.io.files import make_folder

    began = time.perf_counter()
    config = load_config(CONFIG, parse_options(args.cfg_options))
    configure_training(config, work_dir=args.work_dir, seed=SEED)

    heading(f"1/4  street scenes in {config.data_root}")
    manifest = render_streets(Path(config.data_root))

    heading(f"2/4  training in {config.work_dir}")
    checkpoint = train_once(config, manifest, args.retrain)

    heading("3/4  evaluation on frames that were not trained on")
    evaluation = copy.deepcopy(config)
    configure_test(evaluation, work_dir=config.work_dir)
    scores = test(evaluation, str(checkpoint))

    heading("4/4  pictures")
    pictures = draw(config, checkpoint, make_folder(Path(config.work_dir) / "pictures"))

    minutes, seconds = divmod(round(time.perf_counter() - began), 60)
    print(f"\nmIoU on {manifest['parameters']['val']} held-out frames: {scores['mIoU'] / 100:.4f}")
    print("image, truth, prediction and attention of a few positions:")
    for picture in pictures:
        print(f"  {picture}")
    print(f"time: {minutes} min {seconds} s")


def heading(text: str) -> None:
    print(f"\n=== {text} ===", flush=True)


def render_streets(root: Path) -> dict:
    """Render the set, or complete the one that is there; returns its manifest."""
    from danseg.rendered.street_set import MANIFEST, render

    wanted = {}
    if (root / MANIFEST).is_file():
        try:
            # A set that was rendered in another size is just as good for a demo.
            wanted = json.loads((root / MANIFEST).read_text())["parameters"]
        except (ValueError, KeyError):
            pass  # render() raises an error that says what is wrong with the manifest
    manifest = render(root, **wanted, progress=True)
    parameters = manifest["parameters"]
    print("{train} frames to train on, {val} held out, {height} x {width} pixels".format(**parameters))
    return manifest


def train_once(config: Config, manifest: dict, retrain: bool) -> Path:
    """Train, continue a training, or use a finished one; returns the checkpoint of the last iteration.

    It takes the last checkpoint, not the best: choosing by the score on the held-out frames would make that
    score too good.
    """
    from danseg.engine.train import train
    from danseg.errors import UserError
    from danseg.io.files import make_folder

    settings = hashlib.sha256(
        (config.pretty_text + json.dumps(manifest, sort_keys=True)).encode()
    ).hexdigest()
    state = Path(config.work_dir) / STATE
    last = Path(config.work_dir) / f"iter_{config.train_cfg.max_iters}.pth"
    before = read_state(state)
    same = before.get("settings") == settings and not retrain
    if same and before.get("finished") and last.is_file():
        print(f"already trained: {last}   (--retrain trains again)")
        return last
    make_folder(config.work_dir, "the work dir", "choose --work-dir")
    if not same:
        write_state(state, settings=settings, finished=False)
    if same and begun(state):
        train(copy.deepcopy(config), resume="auto")
    else:
        train(copy.deepcopy(config), start_over=True)
    if not last.is_file():
        raise UserError(f"the training left no {last}; checkpoints must be saved at its last iteration")
    write_state(state, settings=settings, finished=True)
    return last


def begun(state: Path) -> bool:
    """Whether the settings in this file were trained with: it is not younger than the newest checkpoint."""
    checkpoints = [path.stat().st_mtime_ns for path in state.parent.glob("iter_*.pth")]
    return max(checkpoints, default=0) >= state.stat().st_mtime_ns


def read_state(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def write_state(path: Path, **state) -> None:
    from danseg.io.files import whole_file

    with whole_file(path) as part:
        part.write_text(json.dumps(state))


def draw(config: Config, checkpoint: Path, out: Path) -> list[Path]:
    """Draw one overview for each of a few held-out frames, spread evenly over the set."""
    from mmseg.registry import DATASETS

    from danseg import apis
    from danseg.visualization import overview_figure, read_labels, save_figure, segment_centres

    model = apis.load_model(config, checkpoint)
    dataset = DATASETS.build({**config.test_dataloader.dataset, "pipeline": []})
    count = min(PICTURES, len(dataset))
    written = []
    for index in (round((k + 0.5) * len(dataset) / count - 0.5) for k in range(count)):
        info = dataset.get_data_info(index)
        path = Path(info["img_path"])
        image, prediction = apis.read_picture(model, path), apis.predict(model, path)
        maps = apis.attention_maps(model, path, segment_centres(prediction, POSITIONS))
        name = path.name.removesuffix(dataset.img_suffix)
        figure = overview_figure(
            image,
            read_labels(info["seg_map_path"]),
            prediction,
            maps["decode_head.pam"],
            classes=model.dataset_meta["classes"],
            palette=model.dataset_meta["palette"],
            name=name,
        )
        written.append(save_figure(figure, out / f"{name}.png"))
    return written


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
