"""How sure a network is of its labels, without logits at the image's resolution."""

import torch
from mmseg.structures import SegDataSample
from torch import Tensor

from danseg.ops.upsampled_confidence import upsampled_confidence


@torch.no_grad()
def label_confidences(sample: SegDataSample) -> Tensor:
    """The probability that a network gives to each label of a sample that it has predicted.

    It is that of softmax over ``seg_logits``; of a head with one channel, that of the sigmoid. From
    :class:`~danseg.segmentors.LazyLogits` it takes the memory of one tile beside the coarse logits.

    Args:
        sample: from ``model.predict`` or ``model.test_step``, with ``seg_logits`` and ``pred_sem_seg``.

    Returns:
        (H, W), from 0 to 1, floating point.
    """
    coarse = getattr(sample.seg_logits, "coarse", None)
    if coarse is not None:
        return upsampled_confidence(
            coarse.logits,
            coarse.size,
            align_corners=coarse.align_corners,
            through=coarse.through,
            padding=coarse.padding,
            threshold=coarse.threshold,
        )
    logits = sample.seg_logits.data
    if len(logits) == 1:  # a probability already
        return torch.where(sample.pred_sem_seg.data[0] > 0, logits[0], 1 - logits[0])
    return upsampled_confidence(logits, logits.shape[1:])
