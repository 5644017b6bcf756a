"""Render a set of street scenes in the Cityscapes layout, drawn with OpenCV from a seed.

With this set a network can be trained, evaluated and shown without downloading data. :func:`render` writes a
tree that any reader of Cityscapes accepts::

    leftImg8bit/{train,val}/<city>/<city>_SSSSSS_FFFFFF_leftImg8bit.png
    gtFine/{train,val}/<city>/<city>_SSSSSS_FFFFFF_gtFine_{labelIds,labelTrainIds,instanceIds,color}.png
    rendered.json

Each frame is a street seen by a pinhole camera: a ground plane with lanes, kerbs and perhaps a crossing;
lots along both sides (houses, walls, fences, parks); and, on the street, vehicles, people and furniture.
Every object has a position and a size in metres, from which the perspective determines its scale. Objects are
painted from far to near, so that near ones hide far ones. Light (day, overcast, dusk, fog), shadows, texture
and sensor noise vary.

Frame ``k`` of a split depends only on ``(seed, split, k)`` and the image size, not on the number of frames or
processes. On the same machine with the same versions of OpenCV and NumPy it is equal byte for byte.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from danseg.errors import UserError
from danseg.io.files import make_folder, whole_file
from danseg.io.images import save_image
from danseg.io.parallel import available_cpus, parallel_map
from danseg.label_maps.cityscapes_labels import LABELS, TRAIN_IDS
from danseg.label_maps.label_png import write_label_map
from danseg.rendered.frame import draw_street

TRAIN_FRAMES, VAL_FRAMES = 200, 40
HEIGHT, WIDTH = 256, 512

# Increase it whenever a frame's bytes change, so that an old tree is not mistaken for a new one.
DRAWING_VERSION = 1
MANIFEST = "rendered.json"
# Invented names. A frame's city depends only on its number, not on how many frames are rendered.
CITIES = {"train": ("altwiek", "birkenau", "cronfurt", "dornach"), "val": ("eschfeld", "finkenberg")}
FRAME_NUMBER = 19  # Cityscapes annotates the 20th frame of a 30-frame snippet.
MIN_HEIGHT, MIN_WIDTH = 32, 64
# Cityscapes' colour images have an opaque alpha channel.
COLOURS = np.array([(*label.colour, 255) for label in LABELS], np.uint8)


def render(
    root: str | os.PathLike,
    *,
    train: int = TRAIN_FRAMES,
    val: int = VAL_FRAMES,
    height: int = HEIGHT,
    width: int = WIDTH,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = False,
) -> dict:
    """Draw a set of street scenes below ``root``; do nothing if it is already there.

    To complete a set after an interruption or after losing files, call again with the same arguments.

    Args:
        root: Folder of the set; it is made if it does not exist.
        train: Number of frames in the training split.
        val: Number of frames in the validation split.
        height: Height of a frame in pixels.
        width: Width of a frame in pixels.
        seed: Any integer from 0; each seed gives a different set.
        workers: Number of processes, by default one for each CPU this process may use. It does not change
            what is drawn.
        progress: Whether to show a progress bar with the time left on stderr, if that is a terminal.

    Returns:
        The manifest, which is also written to ``root/rendered.json``: ``drawing`` (version of the drawing),
        ``parameters`` (train, val, height, width, seed) and ``complete``.

    Raises:
        UserError: An argument is out of range, or ``root`` holds a tree that was not rendered with these
            arguments. In this case nothing is overwritten.
    """
    parameters = dict(train=train, val=val, height=height, width=width, seed=seed)
    _check_parameters(parameters, workers)
    root = Path(root)
    wanted = dict(drawing=DRAWING_VERSION, parameters=parameters, complete=True)
    found = _read_manifest(root)
    if found is not None and {**found, "complete": True} != wanted:
        raise UserError(
            f"{root} holds a set rendered otherwise: {_describe(found)}, wanted {_describe(wanted)}. "
            "Remove that folder, or name another one."
        )

    frames = [("train", k) for k in range(train)] + [("val", k) for k in range(val)]
    if found is not None and found["complete"]:
        frames = [frame for frame in frames if not all(path.is_file() for path in _frame_paths(root, *frame))]
    if frames or found is None:
        _write_manifest(root, {**wanted, "complete": False})
        for folder in {path.parent for frame in frames for path in _frame_paths(root, *frame)}:
            make_folder(folder)
        write = functools.partial(_write_frame, root=root, height=height, width=width, seed=seed)
        _for_each(frames, write, workers, f"Rendering to {root}", progress)
        _write_manifest(root, wanted)
    return wanted


def draw_frame(split: str, k: int, *, height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw frame ``k`` of ``split``.

    Returns:
        The image, ``(height, width, 3)`` uint8 in RGB, and its instance ids, ``(height, width)`` uint16: the
        label id, or ``1000 * id + k`` for the k-th instance of a class that has instances.
    """
    # A spawn key makes the random streams of all frames in both splits independent, whatever the seed.
    stream = np.random.SeedSequence(seed, spawn_key=(list(CITIES).index(split), k))
    plan_rng, grain_rng = (np.random.default_rng(child) for child in stream.spawn(2))
    return draw_street(height, width, plan_rng, grain_rng)


def _check_parameters(parameters: dict, workers: int | None) -> None:
    least = dict(train=0, val=0, height=MIN_HEIGHT, width=MIN_WIDTH, seed=0, workers=1)
    for name, value in {**parameters, "workers": 1 if workers is None else workers}.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least[name]:
            raise UserError(f"{name} is {value!r}: give an integer of at least {least[name]}.")


def _read_manifest(root: Path) -> dict | None:
    """The manifest below ``root``; None if a new set can be written there."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file, not a folder: name another place for the rendered set.")
    path = root / MANIFEST
    if path.is_file():
        try:
            manifest = json.loads(path.read_text())
            if {"drawing", "parameters", "complete"} <= manifest.keys():
                return manifest
        except (ValueError, AttributeError):
            pass
        raise UserError(f"{path} is not a manifest of a rendered set: remove {root}, or name another folder.")
    for name in ("leftImg8bit", "gtFine"):
        if (root / name).exists():
            raise UserError(
                f"{root} already holds {name} but no {MANIFEST}, so it was not rendered by danseg and will "
                "not be overwritten. Name another folder, or remove that one if it is not needed."
            )
    return None


def _write_manifest(root: Path, manifest: dict) -> None:
    make_folder(root)
    with whole_file(root / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=2) + "\n")


def _describe(manifest: dict) -> str:
    parameters = manifest["parameters"]
    return ", ".join(f"{name} {parameters[name]}" for name in parameters) + f", drawing {manifest['drawing']}"


def _frame_paths(root: Path, split: str, k: int) -> tuple[Path, ...]:
    """Paths of the image and of its labelIds, labelTrainIds, instanceIds and color."""
    city = CITIES[split][k % len(CITIES[split])]
    stem = f"{city}_{k:06d}_{FRAME_NUMBER:06d}"
    kinds = ("labelIds", "labelTrainIds", "instanceIds", "color")
    labels = (root / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png" for kind in kinds)
    return root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", *labels


def _write_frame(frame: tuple[str, int], *, root: Path, height: int, width: int, seed: int) -> None:
    split, k = frame
    image, instances = draw_frame(split, k, height=height, width=width, seed=seed)
    ids = np.where(instances < 1000, instances, instances // 1000).astype(np.uint8)
    image_path, ids_path, train_ids_path, instances_path, colours_path = _frame_paths(root, split, k)
    write_label_map(ids_path, ids)
    write_label_map(train_ids_path, TRAIN_IDS[ids])
    save_image(image, image_path, compression=3)
    save_image(instances, instances_path, compression=3)
    save_image(COLOURS[ids], colours_path, compression=3)


def _for_each(
    frames: list[tuple[str, int]], write: Callable, workers: int | None, description: str, progress: bool
) -> None:
    workers = min(workers or available_cpus(), len(frames))
    if workers <= 1:
        with _single_threaded_opencv():
            parallel_map(
                write, frames, description=description, progress=progress, pool=ThreadPoolExecutor(1)
            )
        return
    # A forked worker need not import torch and mmseg, which takes longer than the drawing. On systems other
    # than Linux, system libraries do not survive a fork.
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(0,))
    parallel_map(write, frames, description=description, progress=progress, pool=pool)


@contextmanager
def _single_threaded_opencv() -> Iterator[None]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
