"""The plan of ``python -m benchmarks.input --device cuda``: images a second that all cores bring to a GPU.

mmengine builds the data loader of danseg's Cityscapes config, with danseg's transforms (from PNG files, and
from the frame cache) or with mmseg's in their place, and some number of workers. Its batches of two lie in
pinned memory; the model's data preprocessor copies them to the device and normalises them, and nothing else
is done with them. That is the rate at which a training step would never wait.

The files are few, and after the first round they are read from memory, not from a disk.
"""

import gc
import json
import math
import time
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks import input as on_one_core
from benchmarks import ways
from benchmarks.networks import Network, read_config
from benchmarks.report import size_name
from benchmarks.training_gpu import MODE as TRAINING_STEP
from benchmarks.ways import Figure, Job
from danseg.errors import UserError
from danseg.io.parallel import available_cpus

NETWORK = Network(50)
CASE, NEEDED = "training input, from the loader", "training input, needed"
# Of each measurement, after every worker has filled its place in the queue.
SECONDS = 0.8


def loader_config(root: Path, side: str, workers: int, pinned: bool) -> dict[str, Any]:
    """The config's training loader, with frames below ``root``."""
    loader = read_config(NETWORK).train_dataloader
    loader.update(num_workers=workers, pin_memory=pinned)
    dataset = loader.dataset
    dataset.data_root = str(root)
    if side == "mmseg":
        dataset.pipeline = on_one_core.mmsegs_pipeline()
    else:
        size = dict(scale=on_one_core.FRAME[::-1], crop_size=on_one_core.CROP)
        dataset.pipeline[0].update(**size, cache=side == "danseg, cached")
    return loader


def delivered(root: Path, side: str, workers: int, device: torch.device, seconds: float = SECONDS) -> Figure:
    """Seconds that a batch takes to arrive on the device, on average."""
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner
    from mmseg.models import SegDataPreProcessor

    import danseg.datasets  # noqa: F401

    init_default_scope("mmseg")
    settings = dict(read_config(NETWORK).model.data_preprocessor, size=on_one_core.CROP)
    del settings["type"]
    preprocessor = SegDataPreProcessor(**settings).to(device)
    preprocessor._non_blocking = True  # mmseg's constructor does not pass it on
    on_cuda = device.type == "cuda"
    loader = Runner.build_dataloader(loader_config(root, side, workers, pinned=on_cuda), seed=0)
    size, batch = size_name(on_one_core.CROP), loader.batch_sampler.batch_size
    figure = Figure(CASE, f"{workers} workers", size, batch, "uint8 to float32", side)
    begun = time.perf_counter()
    batches = iter(loader)
    try:
        for data in islice(batches, loader.prefetch_factor * workers):
            preprocessor(data, True)
            figure.first_seconds = figure.first_seconds or time.perf_counter() - begun
        count, start = 0, time.perf_counter()
        # Workers take turns: after whole rounds, none is ahead of the others.
        while count % workers or time.perf_counter() - start < seconds:
            out = preprocessor(next(batches), True)
            count += 1
        if on_cuda:
            torch.cuda.synchronize(device)
        figure.seconds = (time.perf_counter() - start) / count
    finally:
        del batches, loader  # ends the workers
        gc.collect()
    if (
        tuple(out["inputs"].shape) != (batch, 3, *on_one_core.CROP)
        or out["inputs"].device.type != device.type
    ):
        raise RuntimeError(f"{side}: the loader delivered {out['inputs'].shape} on {out['inputs'].device}")
    return figure


def eaten(folder: Path, device: torch.device) -> Figure | None:
    """The fastest training step among stored results of this kind of device; None if there is none."""
    steps = [
        figure
        for path in sorted(folder.glob(f"training_{device.type}-*.json"))
        if "_quick" not in path.stem and "figures" in json.loads(path.read_text(encoding="utf-8"))
        for figure in ways.load(path)
        if (figure.case, figure.mode) == (NETWORK.name, TRAINING_STEP)
        and figure.size == size_name(on_one_core.CROP)
        and figure.seconds
    ]
    return min(steps, key=lambda step: step.seconds / step.batch, default=None)


def needed(figures: Sequence[Figure], step: Figure | None) -> list[Figure]:
    """For each side, a note: how many workers the step needs, at the rate of each among the most workers."""
    found = []
    for side in on_one_core.SIDES:
        of_side = [figure for figure in figures if figure.way == side and figure.seconds]
        if not of_side:
            continue
        most = max(of_side, key=_workers)
        per_worker = most.batch / most.seconds / _workers(most)
        told = f"{per_worker:.3g} images a second and worker ({most.mode})"
        if step is None:
            told += f"; the training step of {NETWORK.name}: not measured, run benchmarks.training first"
        else:
            rate = step.batch / step.seconds
            told += (
                f"; {rate:.3g} images a second are eaten by the training step of {step.case} ({step.way}, "
                f"{step.precision}): {math.ceil(rate / per_worker)} workers needed, {available_cpus()} cores"
            )
        found.append(Figure(NEEDED, TRAINING_STEP, most.size, most.batch, most.precision, side, note=told))
    return found


def _workers(figure: Figure) -> int:
    return int(figure.mode.split()[0])


def numbers_of_workers(cores: int) -> list[int]:
    """All cores but the one of the training process first, then fewer."""
    most = max(1, cores - 1)
    return [most, *(count for count in (1, 8, 4) if count < most)]


def jobs(root: Path, folder: Path, workers: Sequence[int], device: torch.device, seconds: float) -> list[Job]:
    """A job for each number of workers and each side; after every number, what the training step needs."""
    figures: list[Figure] = []

    def measure(side: str, count: int) -> list[Figure]:
        figures.append(delivered(root, side, count, device, seconds))
        return figures[-1:]

    found: list[Job] = []
    for count in workers:
        for side in on_one_core.SIDES:
            found.append((f"{side}, {count} workers", partial(measure, side, count)))
        if count == workers[0]:
            found.append(("workers needed", lambda: needed(figures, eaten(folder, device))))
    return found


def carry_out(
    root: Path, device: torch.device, seconds: float, folder: Path, suffix: str = "", each: float = SECONDS
) -> list[Figure]:
    """Measure with the frames below ``root``, whose cache is made here."""
    begun = time.monotonic()
    samples = on_one_core.list_samples(root)
    if not samples:
        raise UserError(f"there are no frames in {root}")
    on_one_core.make_cache(root, samples)
    todo = jobs(root, folder, numbers_of_workers(available_cpus()), device, each)
    left = max(1.0, seconds - (time.monotonic() - begun))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # as env_cfg.mp_cfg of the configs: the workers are the parallelism
    try:
        return ways.carry_out("input", todo, device, left, folder, suffix=suffix)
    finally:
        cv2.setNumThreads(threads)
