"""The way of pictures of one size through the network together, with or without test-time augmentation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseTTAModel
from torch import Tensor

from danseg.apis.predict import InputPipeline, batch_of
from danseg.datasets.loading import shown
from danseg.engine.out_of_memory import explaining_memory
from danseg.errors import UserError, reason_of
from danseg.segmentors import as_probabilities, predict_labels, predict_probabilities

#: Pictures that are batched among themselves, and so the most of a batch, unless another number is asked for.
PORTION = 16
# A batch of unasked size has at most so many pixels: those of one frame of Cityscapes.
_PIXELS = 1024 * 2048


class NotTakenError(Exception):
    """A network cannot take pictures of a size; the message says why."""


class Batches:
    """Makes labels of pictures that were loaded; ``prepared`` may be called by several threads.

    Args:
        model: from :func:`danseg.apis.prepare_for_inference`, or test-time augmentation around it.
        pipeline: the test pipeline of that.
        size: the most pictures that go through the network together; None for as many as ``PORTION`` and
            ``_PIXELS`` allow.
        probabilities: whether to give them too.
        remedies: what to change if memory does not suffice.
    """

    def __init__(
        self,
        model: Any,
        pipeline: InputPipeline,
        *,
        size: int | None = None,
        probabilities: bool = False,
        remedies: Sequence[str] = (),
    ) -> None:
        self.model, self.pipeline = model, pipeline
        self.portion = size or PORTION
        self._size, self._probabilities, self._remedies = size, probabilities, remedies

    def prepared(self, loaded: dict, what: str, picture: bool) -> tuple[np.ndarray | None, dict]:
        """The picture to draw on, if one is wanted, and what the pipeline makes of what was loaded.

        Raises:
            UserError: it makes nothing of it; ``what`` is what to call it.
        """
        drawn_on = shown(self.pipeline.loader, loaded["img"]) if picture else None
        try:
            return drawn_on, self.pipeline.prepared(loaded, loaded.get("img_path") or loaded["img"])
        except (UserError, MemoryError):
            raise
        except Exception as error:  # a step may raise anything
            kind = type(error).__name__
            raise UserError(f"{what}: the test pipeline fails on it: {kind}: {reason_of(error)}") from None

    def limit(self, sample: dict) -> int:
        """How many samples of this one's size go through the network together."""
        if self._size:
            return self._size
        pixels = max(one.shape[-2] * one.shape[-1] for one in _views(sample))
        return max(1, min(PORTION, _PIXELS // pixels))

    @torch.no_grad()
    def labels(self, samples: Sequence[dict]) -> list[tuple[np.ndarray, Any]]:
        """Labels (H, W) of samples of one size, and float16 probabilities (C, H, W) or None.

        Args:
            samples: what :meth:`prepared` made of them.

        Raises:
            NotTakenError: the network cannot take pictures of this size.
            UserError: there is too little memory.
        """
        try:
            with explaining_memory(*self._remedies):
                return [
                    (labels.cpu().numpy(), None if scores is None else scores.half().cpu().numpy())
                    for labels, scores in self._outputs(batch_of(samples))
                ]
        except (RuntimeError, ValueError) as error:
            if "CUDA" in str(error):
                raise
            raise NotTakenError(f"the network cannot take it: {reason_of(error)}") from error

    def _outputs(self, batch: dict) -> list[tuple[Tensor, Tensor | None]]:
        if isinstance(self.model, BaseTTAModel):
            # For each view the pictures, not for each picture the views.
            views = {key: list(zip(*value, strict=True)) for key, value in batch.items()}
            return [
                (
                    one.pred_sem_seg.data[0].long(),
                    as_probabilities(one.seg_logits.data) if self._probabilities else None,
                )
                for one in self.model.test_step(views)
            ]
        data = self.model.data_preprocessor(batch, training=False)
        if self._probabilities:
            return list(predict_probabilities(self.model, **data))
        return [(labels, None) for labels in predict_labels(self.model, **data)]


def size_of(sample: dict) -> tuple:
    """What has to be equal in a batch."""
    return tuple((tuple(one.shape), one.dtype) for one in _views(sample))


def _views(sample: dict) -> list[Tensor]:
    inputs = sample["inputs"]
    return inputs if isinstance(inputs, list) else [inputs]
