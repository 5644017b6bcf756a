"""Segmentors, registered in mmseg's ``MODELS``: they turn a network's logits into the labels of an image."""

from danseg.errors import require_mmseg

require_mmseg("danseg.segmentors")

from danseg.segmentors.confidences import label_confidences  # noqa: E402
from danseg.segmentors.labels import (  # noqa: E402
    CoarseLogits,
    as_probabilities,
    coarse_logits,
    head_logits,
    predict_labels,
    predict_probabilities,
    require_eval_mode,
)
from danseg.segmentors.lazy_logits import LazyLogits  # noqa: E402
from danseg.segmentors.lean_encoder_decoder import LeanEncoderDecoder  # noqa: E402
from danseg.segmentors.lean_tta_model import LeanTTAModel  # noqa: E402

__all__ = [
    "CoarseLogits",
    "LazyLogits",
    "LeanEncoderDecoder",
    "LeanTTAModel",
    "as_probabilities",
    "coarse_logits",
    "head_logits",
    "label_confidences",
    "predict_labels",
    "predict_probabilities",
    "require_eval_mode",
]
