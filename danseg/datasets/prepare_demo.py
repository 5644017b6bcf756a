"""Prepare the demo: render street scenes, then check them like any other data set."""

import os

from danseg.datasets.after_preparing import Reports, finished
from danseg.known_datasets import known_dataset
from danseg.rendered.street_set import HEIGHT, TRAIN_FRAMES, VAL_FRAMES, WIDTH, render

_DEMO = known_dataset("demo")


def demo(
    root: str | os.PathLike = _DEMO.root,
    *,
    train: int = TRAIN_FRAMES,
    val: int = VAL_FRAMES,
    height: int = HEIGHT,
    width: int = WIDTH,
    seed: int = 0,
    cache: bool = False,
    progress: bool = True,
) -> Reports:
    """Render street scenes in the Cityscapes layout, then check them.

    Args:
        root: Folder for the scenes.
        train: Number of training frames.
        val: Number of validation frames.
        height: Height of a frame in pixels.
        width: Width of a frame in pixels.
        seed: Seed of the random scenes; each seed gives a different set.
        cache: Whether to unpack the training frames as well (:mod:`danseg.datasets.frame_cache`).
        progress: Whether to draw progress bars on stderr.

    Returns:
        One report for each split that has frames, and one for the cache if it was written.

    Raises:
        UserError: An argument is out of range, or ``root`` holds other files.
    """
    render(root, train=train, val=val, height=height, width=width, seed=seed, progress=progress)
    splits = [split for split, frames in (("train", train), ("val", val)) if frames]
    return finished(_DEMO, root, splits, cache, progress)
