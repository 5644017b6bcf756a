"""Segment an image through a config's test pipeline."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.dataset import Compose
from mmseg.models import BaseSegmentor

from danseg.apis.model import tested_dataset
from danseg.segmentors import predict_labels
from danseg.visualization import read_image


def predict(model: BaseSegmentor, image: str | Path | np.ndarray) -> np.ndarray:
    """Segment an image through the config's test pipeline and test mode (whole or sliding).

    The labels are those of ``test_step``. Neither danseg's ``LeanEncoderDecoder`` nor mmseg's
    ``EncoderDecoder`` makes logits of the whole image at its resolution here. To get such logits, call
    ``test_step`` and read ``seg_logits``.

    Args:
        model: from :func:`load_model` or :func:`prepare_for_inference`.
        image: a file, or (H, W, 3) uint8 RGB.

    Returns:
        (H, W) int64 class ids, in the image's own size.

    Raises:
        UserError: the image is missing or cannot be read.
        ValueError: the model is in training mode.
    """
    data = model.data_preprocessor(prepared_batch(model, image), training=False)
    [labels] = predict_labels(model, **data)
    return labels.cpu().numpy().astype(np.int64)


def prepared_batch(model: BaseSegmentor, image: str | Path | np.ndarray) -> dict:
    """Pass one image, without a label, through the test pipeline; returns a batch for ``test_step``."""
    steps = [step for step in tested_dataset(model.cfg)["pipeline"] if step["type"] != "LoadAnnotations"]
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} of {image.dtype}")
        steps = [{**steps[0], "type": "LoadImageFromNDArray"}, *steps[1:]]
        source: dict[str, Any] = dict(img=cv2.cvtColor(image, cv2.COLOR_RGB2BGR))  # pipelines work in BGR
    else:
        source = dict(img_path=str(image))
    try:
        data = Compose(steps)(source)
    except Exception:
        if not isinstance(image, np.ndarray):
            read_image(image)  # if the file is the cause, this raises an error that names it
        raise
    return dict(inputs=[data["inputs"]], data_samples=[data["data_samples"]])
