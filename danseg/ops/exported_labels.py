"""Labels and their probabilities from coarse logits in PyTorch's own operators, for files."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from danseg.ops.inputs import energy_dtype


def exported_argmax(
    logits: Tensor,
    size: Sequence[int],
    align_corners: bool,
    through: Sequence[int] | None,
    padding: Sequence[int],
    threshold: float | None,
) -> Tensor:
    """Class ids (B, H, W), int64; arguments as for :func:`danseg.ops.upsampled_argmax`."""
    resized = _resized(logits, size, align_corners, through, padding)
    if threshold is not None:
        return (resized[:, 0].sigmoid() > threshold).long()
    return resized.argmax(1)


def exported_confidence(
    logits: Tensor,
    size: Sequence[int],
    align_corners: bool,
    through: Sequence[int] | None,
    padding: Sequence[int],
    threshold: float | None,
) -> Tensor:
    """Probabilities (H, W) of labels; arguments as for ``upsampled_confidence``."""
    resized = _resized(logits[None], size, align_corners, through, padding)[0]
    if threshold is None:
        return resized.softmax(0).amax(0)
    probability = resized[0].sigmoid()
    return torch.where(probability > threshold, probability, 1 - probability)


def _resized(
    logits: Tensor,
    size: Sequence[int],
    align_corners: bool,
    through: Sequence[int] | None,
    padding: Sequence[int],
) -> Tensor:
    """Logits (B, C, H, W), through the first resize, if there is one."""
    logits = logits.to(energy_dtype(logits.dtype))
    if through is not None:
        logits = F.interpolate(logits, tuple(through), mode="bilinear", align_corners=align_corners)
    left, right, top, bottom = padding
    height, width = logits.shape[2:]
    logits = logits[:, :, top : height - bottom, left : width - right]
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=align_corners)
