"""What a request may ask for, and how it is made of labels."""

import json
from collections.abc import Callable
from typing import Literal

from danseg.apis.prediction import Prediction
from danseg.io.images import encode_image, encode_indexed

#: What is sent back.
Output = Literal["labels", "areas", "overlay"]
PNG, JSON = "image/png", "application/json"


def _labels(prediction: Prediction) -> bytes:
    return encode_indexed(prediction.labels.astype("uint8"), prediction.palette)


def _areas(prediction: Prediction) -> bytes:
    height, width = prediction.labels.shape
    areas = [
        {"id": id, "class": name, "colour": list(map(int, colour)), **area._asdict()}
        for id, ((name, area), colour) in enumerate(
            zip(prediction.areas().items(), prediction.palette, strict=True)
        )
    ]
    return json.dumps({"width": width, "height": height, "areas": areas}, ensure_ascii=False).encode()


def _overlay(prediction: Prediction) -> bytes:
    return encode_image(prediction.overlay(), ".png")


#: Each output's type, and what makes it.
ANSWERS: dict[Output, tuple[str, Callable[[Prediction], bytes]]] = {
    "labels": (PNG, _labels),
    "areas": (JSON, _areas),
    "overlay": (PNG, _overlay),
}
