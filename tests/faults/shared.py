"""What the trials share, made once: a rendered data set, a config, a trained network."""

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import fork_server
from child_process import ROOT

TINY = ROOT / "tests" / "engine" / "tiny.py"
# Of numbers that files hold, these are of the clock.
TIMES = ("time", "data_time", "memory", "timestamp", "date", "eta")


class Shared:
    """Made in a folder, when they are first asked for. Trials copy what they change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()
        self._made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """``make()``, called at the first time that ``name`` is asked for."""
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]

    @property
    def data(self) -> Path:
        """A rendered Cityscapes tree: 6 training and 3 validation frames of 64 x 128."""
        return self.once("data", self._render)

    def _render(self) -> Path:
        from danseg.rendered.street_set import render

        render(self.root / "data", train=6, val=3, height=64, width=128)
        return self.root / "data"

    @property
    def trained(self) -> Path:
        """The work dir of a training of four iterations, with a checkpoint after each."""
        return self.once("trained", lambda: self.train(self.root / "trained" / "work", 4))

    @property
    def cache(self) -> Path:
        """The cache that remembers the data set's check, which the training has made."""
        return self.trained.parent / "cache"

    def train(self, work_dir: Path, iterations: int, *options: str) -> Path:
        """Train without faults."""
        arguments = training(self.data, work_dir, iterations, *options)
        run = fork_server.start("train", arguments, work_dir.parent / "train.txt", variables=cache(work_dir))
        status = run.wait(120)
        if status != 0:
            raise RuntimeError(f"a training without faults ended with status {status}:\n{run.text()}")
        return work_dir


def training(
    data: Path,
    work_dir: Path,
    iterations: int,
    *options: str,
    config: Path = TINY,
    seed: int = 0,
    interval: int = 1,
    more: Sequence[object] = (),
) -> list[object]:
    """Arguments of tools/train.py: a checkpoint every ``interval``, a validation every two iterations."""
    length = (f"train_cfg.max_iters={iterations}", "train_cfg.val_interval=2")
    return [
        *(config, "--work-dir", work_dir, "--seed", seed, "--deterministic", *more),
        *(
            "--cfg-options",
            f"data_root={data}",
            *length,
            f"default_hooks.checkpoint.interval={interval}",
            *options,
        ),
    ]


def scored_folders(data: Path, folder: Path) -> tuple[Path, Path]:
    """Predictions, and the labels that they are compared with, made in ``folder``."""
    predictions, truth = folder / "predictions", folder / "truth"
    for made in (predictions, truth):
        made.mkdir(parents=True)
    for path in data.glob("gtFine/val/*/*_labelIds.png"):
        shutil.copy(path, truth)
        with Image.open(path) as image:
            shifted = np.roll(np.asarray(image), 3, axis=1)
        Image.fromarray(shifted).save(predictions / f"{path.name[:-20]}_pred.png")
    return predictions, truth


def cache(work_dir: Path) -> dict[str, str]:
    """A cache beside the work dir, for a run's environment."""
    return {"XDG_CACHE_HOME": str(work_dir.parent / "cache")}


def results(folder: Path) -> list[str]:
    """What a tool has written, without names and times: equal lists are equal results."""
    return sorted(filter(None, map(_result, (path for path in folder.rglob("*") if path.is_file()))))


def _result(path: Path) -> str:
    if path.suffix in (".png", ".tif"):
        with Image.open(path) as image:
            pixels = np.asarray(image)
        return f"{path.suffix} {pixels.shape} {hash(pixels.tobytes())}"
    if path.suffix == ".json":
        numbers = [_without_times(json.loads(line)) for line in _documents(path)]
        return f".json {json.dumps(numbers, sort_keys=True)}"
    return ""


def _documents(path: Path) -> Sequence[str]:
    text = path.read_text()
    try:
        json.loads(text)
    except ValueError:
        return text.splitlines()
    return [text]


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_times(inner)
            for key, inner in value.items()
            if key not in TIMES and not (isinstance(inner, str) and inner.startswith("/"))
        }
    return value


def copied(source: Path, destination: Path) -> Path:
    """A copy of a folder, with the files' times."""
    shutil.copytree(source, destination)
    return destination
