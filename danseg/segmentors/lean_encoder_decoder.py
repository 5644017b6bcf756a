"""mmseg's encoder-decoder, whose labels take no logits at the image's resolution."""

from collections.abc import Sequence

import torch
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from danseg.segmentors.labels import coarse_logits
from danseg.segmentors.lazy_logits import LazyLogits


@MODELS.register_module()
class LeanEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` with the same arguments, weights, losses and predictions, in less memory.

    mmseg resizes the logits to the network's input and then to the image, and takes the best class: for
    19 classes on a 1024 x 2048 frame twice 160 MB. Here ``predict``, and so ``val_step`` and
    ``test_step``, takes the labels straight from the head's logits, tile by tile. ``seg_logits`` are
    there as in mmseg, but made on the first read (:class:`~danseg.segmentors.LazyLogits`): test-time
    augmentation and metrics that look at them need no option, and nothing else pays for them.

    Labels are mmseg's but for pixels where two classes tie to rounding. Batches with flipped images and
    heads with a ``predict`` of their own (mmseg's ``DAHead``, for one) take mmseg's way.
    """

    def predict(
        self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> Sequence[SegDataSample]:
        """Labels of a batch.

        Args:
            inputs: ``(B, 3, H, W)`` from the data preprocessor.
            data_samples: B samples with the meta information that pipeline and preprocessor noted.

        Returns:
            The samples, with ``pred_sem_seg`` (1, height, width) and ``seg_logits`` (C, height, width)
            of their image.
        """
        if data_samples is None:
            return super().predict(inputs)
        coarse = coarse_logits(self, inputs, data_samples)
        if coarse is None:
            return super().predict(inputs, data_samples)
        for sample, one in zip(data_samples, coarse, strict=True):
            # mmseg's types: what argmax gives, and for a single channel that of the logits.
            dtype = torch.int64 if one.threshold is None else one.logits.dtype
            sample.pred_sem_seg = PixelData(data=one.labels()[None].to(dtype))
            sample.seg_logits = LazyLogits.of(one)
        return data_samples
