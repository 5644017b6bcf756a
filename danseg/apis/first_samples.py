"""The samples that a network gets first: what a config's pipeline makes of images and labels, to look at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count as count_from
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor

from danseg.datasets.loading import loading_step, loads_colours, shown
from danseg.datasets.wrappers import inner_datasets
from danseg.engine.config.building import naming_places
from danseg.engine.data import loader_of
from danseg.engine.runner import DansegRunner
from danseg.engine.sample_seeds import draw_sampler, own_dataset
from danseg.label_maps.id_formats import VOID


@dataclass(frozen=True)
class Sample:
    """An image and its label as the network gets them.

    Attributes:
        path: the image's file; of several that were mixed, the first.
        image: (H, W, 3) uint8, RGB: the network's input without its normalisation.
        labels: (H, W) class ids; None for a split without labels.
    """

    path: str
    image: np.ndarray
    labels: np.ndarray | None


def first_samples(config: Config, split: str, count: int, seed: int) -> Iterator[Sample]:
    """Load the first samples of a split, with the order and the random numbers of a training with this seed.

    They went through the pipeline and the network's data preprocessor, which pads them; only its
    normalisation is undone.

    Args:
        config: the config as it was read; its network is not built.
        split: "train", "val" or "test".
        count: how many; fewer if the split ends before. A training set begins again, as in training.
        seed: as of ``tools/train.py --seed``, for a training in one process.

    Yields:
        One after the other: whole frames take memory.

    Raises:
        UserError: the config has no such split, or it cannot be loaded.
    """
    loader_config = loader_of(config, split)
    init_default_scope(config.get("default_scope") or "mmseg")
    with naming_places(config):
        # How many workers load the samples decides nothing about them.
        loader = DansegRunner.build_dataloader({**loader_config, "num_workers": 0}, seed=seed)
        settings = config.model.get("data_preprocessor") or dict(type="SegDataPreProcessor")
        preprocessor = MODELS.build(settings)
    # The two lines of mmseg keep this under different names.
    swaps = bool(settings.get("bgr_to_rgb") or settings.get("rgb_to_bgr"))
    first = next(inner_datasets(own_dataset(loader)))
    step = loading_step(first.pipeline.transforms)
    yield from islice(_passes(loader, preprocessor, swaps, step, split == "train"), count)


def _passes(loader: Any, preprocessor: Any, swaps: bool, step: Any, training: bool) -> Iterator[Sample]:
    """The samples of a loader; a training begins again where the set ends."""
    for epoch in count_from(0):
        draw_sampler(loader).set_epoch(epoch)  # type: ignore[union-attr]
        empty = True
        for batch in loader:
            empty = False
            yield from _samples(batch, preprocessor, swaps, step, training)
        if empty or not training:
            return


def _samples(batch: dict, preprocessor: Any, swaps: bool, step: Any, training: bool) -> Iterator[Sample]:
    loaded = [image.dtype for image in batch["inputs"]]
    ready = preprocessor(batch, training=training)
    for dtype, image, sample in zip(loaded, ready["inputs"], ready["data_samples"], strict=True):
        pixels = _as_loaded(image, preprocessor, swaps).permute(1, 2, 0).numpy()  # (C, H, W) -> (H, W, C)
        if dtype == torch.uint8 or loads_colours(step):
            pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
        labels = None
        if "gt_sem_seg" in sample:
            labels = _as_large(sample.gt_sem_seg.data[0].numpy(), sample.img_shape[:2], pixels.shape[:2])
        yield Sample(str(sample.get("img_path", "")), shown(step, pixels), labels)


def _as_loaded(image: Tensor, preprocessor: Any, swaps: bool) -> Tensor:
    """The numbers and the order of channels that a pipeline has given, of a network's input (C, H, W)."""
    if getattr(preprocessor, "_enable_normalize", False):
        image = image * preprocessor.std + preprocessor.mean
    return image[[2, 1, 0]] if swaps and len(image) == 3 else image


def _as_large(labels: np.ndarray, content: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """Labels (H, W) of a test pipeline, which keeps their size, for its resized and then padded image."""
    if labels.shape == tuple(size):
        return labels
    labels = cv2.resize(labels.astype(np.float32), tuple(content[::-1]), interpolation=cv2.INTER_NEAREST)
    padded = np.full(size, VOID, dtype=np.int64)
    padded[: content[0], : content[1]] = labels
    return padded
