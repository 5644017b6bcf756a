"""A trained network that is ready to use, in one object."""

import html
from pathlib import Path
from types import EllipsisType
from typing import Any, overload

import numpy as np
import torch
from mmengine.config import Config

from danseg.apis.model import load_model
from danseg.apis.pictures import Picture
from danseg.apis.predict import as_label_map, segmented
from danseg.apis.prediction import Prediction, legend_html
from danseg.apis.preparation import ready_for_inference
from danseg.export.exported_network import is_exported
from danseg.segmentors import predict_labels, predict_probabilities


class Segmenter:
    """Loads a trained network, prepares it, and segments pictures::

        segmenter = Segmenter("configs/danet_r50_cityscapes.py", "best.pth")
        prediction = segmenter("street.png")
        prediction.areas()["road"].share

    It keeps nothing of a call, so several threads may call it at a time. In a notebook it shows its classes.

    Args:
        source, checkpoint, device: as for :func:`danseg.apis.load_model`.
        precision: as for :func:`danseg.apis.prepare_for_inference`; an exported network has its own.

    Attributes:
        model: the prepared network, for :func:`danseg.apis.attention_maps`, :func:`danseg.apis.predict_large`
            and mmseg's ``test_step``.
        classes: names by class id.
        palette: one (red, green, blue) a class.
        precision: the type in which it computes.

    Raises:
        UserError: what the two functions say.
    """

    def __init__(
        self,
        source: str | Path | Config,
        checkpoint: str | Path | EllipsisType | None = ...,
        *,
        device: str | torch.device | None = None,
        precision: str = "float32",
    ) -> None:
        self.model = ready_for_inference(load_model(source, checkpoint, device), precision=precision)
        self.classes: tuple[str, ...] = self.model.dataset_meta["classes"]
        self.palette: list[tuple[int, int, int]] = self.model.dataset_meta["palette"]
        self.precision = precision
        if is_exported(self.model):
            self.precision = self.model.backbone.session.description.precision

    @overload
    def __call__(
        self,
        image: Picture,
        *,
        probabilities: bool = ...,
        channel_order: str = ...,
        unit_range: bool = ...,
        batch_size: int = ...,
    ) -> Prediction: ...

    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        probabilities: bool = ...,
        channel_order: str = ...,
        unit_range: bool = ...,
        batch_size: int = ...,
    ) -> list[Prediction]: ...

    def __call__(
        self,
        image: Picture | list[Any] | tuple[Any, ...],
        *,
        probabilities: bool = False,
        channel_order: str = "rgb",
        unit_range: bool = False,
        batch_size: int = 1,
    ) -> Prediction | list[Prediction]:
        """Segment a picture, or a list of them.

        Args:
            image, channel_order, unit_range, batch_size: as for :func:`danseg.apis.predict`.
            probabilities: keep the probabilities of all classes too. They take 4 bytes a class and pixel: 160
                MB for 19 classes at 1024 x 2048. While they are made, it is up to three times as much on the
                network's device, for each picture of a batch.

        Returns:
            A :class:`Prediction`; for a list, a list of them in its order.

        Raises:
            UserError, ValueError: as :func:`danseg.apis.predict`.
        """

        def prediction(output: Any, picture: np.ndarray) -> Prediction:
            labels, scores = output if probabilities else (output, None)
            return Prediction(
                as_label_map(labels),
                picture,
                self.classes,
                self.palette,
                None if scores is None else scores.cpu().numpy(),
            )

        return segmented(
            self.model,
            image,
            predict_probabilities if probabilities else predict_labels,
            prediction,
            channel_order=channel_order,
            unit_range=unit_range,
            batch_size=batch_size,
            with_pictures=True,
        )

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.model.data_preprocessor.device

    def __repr__(self) -> str:
        config = Path(self.model.cfg.filename or type(self.model.decode_head).__name__).stem
        return f"Segmenter({config}: {len(self.classes)} classes, {self.precision} on {self.device})"

    def _repr_html_(self) -> str:
        legend = legend_html(zip(self.palette, self.classes, strict=True))
        return f"<div><b>{html.escape(repr(self))}</b><br>{legend}</div>"
