"""Segment an image through a config's test pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from mmseg.models import BaseSegmentor

from danseg.apis.model import tested_dataset
from danseg.datasets.loading import described, load_picture, loading_step, shown
from danseg.engine.channels import input_channels
from danseg.errors import UserError
from danseg.segmentors import predict_labels


def predict(model: BaseSegmentor, image: str | Path | np.ndarray) -> np.ndarray:
    """Segment an image through the config's test pipeline and test mode (whole or sliding).

    The labels are those of ``test_step``. Neither danseg's ``LeanEncoderDecoder`` nor mmseg's
    ``EncoderDecoder`` makes logits of the whole image at its resolution here. To get such logits, call
    ``test_step`` and read ``seg_logits``.

    Args:
        model: from :func:`load_model` or :func:`prepare_for_inference`.
        image: a file, which is read as the pipeline's first step reads files (:mod:`danseg.io.images` has the
            rules of the usual one). Or the pixels of such a file, in its order: (H, W) grey, (H, W, 3) RGB or
            (H, W, 4) RGBA in uint8, or other bands and types if the step loads them.

    Returns:
        (H, W) int64 class ids, in the image's own size. A file that the pipeline turns by its EXIF
        orientation, as mmseg's usual one does, has the size of the upright picture.

    Raises:
        UserError: the image is missing or damaged, has more than the 8 bits that the pipeline reads, or has
            other channels than the model takes.
        ValueError: the array is none of an image, or the model is in training mode.
    """
    data = model.data_preprocessor(prepared_batch(model, image), training=False)
    [labels] = predict_labels(model, **data)
    return labels.cpu().numpy().astype(np.int64)


def read_picture(model: BaseSegmentor, image: str | Path | np.ndarray) -> np.ndarray:
    """The picture that the model's pipeline loads, to draw on: (H, W, 3) uint8 RGB, as large as its labels.

    Of more than three channels the first three are shown; values of more than 8 bits are stretched.

    Args:
        model, image: as for :func:`predict`.
    """
    loader = loading_step(tested_dataset(model.cfg)["pipeline"])
    return shown(loader, load_picture(loader, image)["img"])


def prepared_batch(model: BaseSegmentor, image: str | Path | np.ndarray) -> dict:
    """Pass one image, without a label, through the test pipeline; returns a batch for ``test_step``."""
    first, *steps = (step for step in tested_dataset(model.cfg)["pipeline"] if not loads_labels(step))
    loader = loading_step([first])
    data = Compose(steps)(load_picture(loader, image))
    require_channels(model, len(data["inputs"]), loader, image)
    return dict(inputs=[data["inputs"]], data_samples=[data["data_samples"]])


def step_name(step: dict) -> str:
    """The name of a pipeline step's class, without a scope such as ``mmseg.``."""
    kind = step["type"]
    return kind.rpartition(".")[2] if isinstance(kind, str) else kind.__name__


def loads_labels(step: dict) -> bool:
    """Whether a pipeline step loads labels, which a prediction has none of."""
    return step_name(step).startswith("Load") and "Annotation" in step_name(step)


def require_channels(model: BaseSegmentor, found: int, loader: Any, image: str | Path | np.ndarray) -> None:
    """Refuse an image with ``found`` channels that the network would not take once they are normalised.

    Raises:
        UserError: a file has the wrong number of channels.
        ValueError: an array has.
    """
    wanted = input_channels(model.cfg.model)
    mean = getattr(model.data_preprocessor, "mean", None)
    if found == 1 and mean is not None:
        found = len(mean)  # a grey image is normalised once for each
    if wanted is None or found == wanted:
        return
    message = (
        f"has {found} channels as {described(loader)} loads it, but the model takes {wanted} (in_channels of "
        "its backbone); give an image like those of training, or load it in the test pipeline as in training "
        "(color_type)"
    )
    if isinstance(image, np.ndarray):
        raise ValueError(f"image {message}")
    raise UserError(f"image {image} {message}")
