"""mmseg's encoder-decoder, but its labels need no logits at the image's resolution."""

from collections.abc import Sequence

import torch
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor, nn

from danseg.heads.loss import UpsampledLoss, head_losses
from danseg.heads.loss_checks import check_losses
from danseg.segmentors.labels import COARSE_PREDICTS, coarse_logits, inherits
from danseg.segmentors.lazy_logits import LazyLogits


@MODELS.register_module()
class LeanEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` with the same arguments, weights, losses and predictions, in less memory.

    mmseg resizes the logits to the network's input, then to the image, and takes the best class. For 19
    classes on a 1024 x 2048 frame this takes twice 160 MB. Here ``predict``, and therefore ``val_step`` and
    ``test_step``, computes the labels directly from the head's logits, tile by tile. ``seg_logits`` exist as
    in mmseg, but are made on the first read (:class:`~danseg.segmentors.LazyLogits`). Test-time augmentation
    and metrics can read them without an option; if nothing reads them, they cost nothing.

    Labels equal mmseg's, except where rounding decides between two classes. Batches with flipped images, and
    heads that override ``predict`` (such as mmseg's ``DAHead``), are left to mmseg's code.

    Losses are :func:`danseg.heads.loss.head_losses`, also of mmseg's heads, except those that compute their
    losses themselves.
    """

    def init_weights(self) -> None:
        for name, head in self.named_modules():
            if isinstance(head, BaseDecodeHead):
                own = not isinstance(head, UpsampledLoss) and not _has_mmsegs_losses(head)
                check_losses(head, f"model.{name}", names_alone=own)
        super().init_weights()

    def _decode_head_forward_train(self, inputs: Sequence[Tensor], data_samples: list) -> dict[str, Tensor]:
        return self._losses(self.decode_head, inputs, data_samples, "decode")

    def _auxiliary_head_forward_train(
        self, inputs: Sequence[Tensor], data_samples: list
    ) -> dict[str, Tensor]:
        if not isinstance(self.auxiliary_head, nn.ModuleList):
            return self._losses(self.auxiliary_head, inputs, data_samples, "aux")
        losses = {}
        for index, head in enumerate(self.auxiliary_head):
            losses.update(self._losses(head, inputs, data_samples, f"aux_{index}"))
        return losses

    def _losses(
        self, head: BaseDecodeHead, inputs: Sequence[Tensor], data_samples: list, prefix: str
    ) -> dict[str, Tensor]:
        if _has_mmsegs_losses(head):
            return add_prefix(head_losses(head, head(inputs), data_samples), prefix)
        return add_prefix(head.loss(inputs, data_samples, self.train_cfg), prefix)

    def predict(
        self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> Sequence[SegDataSample]:
        """Predict the labels of a batch.

        Args:
            inputs: ``(B, 3, H, W)`` from the data preprocessor.
            data_samples: B samples with the meta information from pipeline and preprocessor.

        Returns:
            The samples, with ``pred_sem_seg`` (1, height, width) and ``seg_logits`` (C, height, width) in the
            size of their image.
        """
        if data_samples is None:
            return super().predict(inputs)
        coarse = coarse_logits(self, inputs, data_samples)
        if coarse is None:
            return super().predict(inputs, data_samples)
        for sample, one in zip(data_samples, coarse, strict=True):
            # The same types as in mmseg: int64 from argmax; with a single channel, the type of the logits.
            dtype = torch.int64 if one.threshold is None else one.logits.dtype
            sample.pred_sem_seg = PixelData(data=one.labels()[None].to(dtype))
            sample.seg_logits = LazyLogits.of(one)
        return data_samples


COARSE_PREDICTS.add(LeanEncoderDecoder.predict)


def _has_mmsegs_losses(head: nn.Module) -> bool:
    return inherits(head, BaseDecodeHead, ("loss", "loss_by_feat"))
