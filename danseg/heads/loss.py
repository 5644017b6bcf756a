"""The heads' cross entropy in bounded memory."""

from collections.abc import Sequence
from typing import Any

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from torch import Tensor, nn

from danseg.attention.parts.arguments import check_feature_map
from danseg.ops import upsampled_cross_entropy

# Avoids a division by 0 where every label is ignored; the value is mmseg's.
_EPSILON = 1.1920929e-07


class UpsampledLoss(BaseDecodeHead):
    """A mixin for mmseg's heads: a check of their input, and their losses without full-resolution logits.

    If every loss is mmseg's ``CrossEntropyLoss`` over a softmax, averaged over equally weighted pixels,
    :func:`danseg.ops.upsampled_cross_entropy` computes the losses and the accuracy, with the same values and
    gradients. With class weights, a pixel sampler (OHEM), or any other loss, mmseg's own code runs.
    """

    def _transform_inputs(self, inputs: Sequence[Tensor]) -> Any:
        """The feature map that the head works on, as in mmseg.

        Raises:
            ValueError: for a map of other channels than the head was made for.
        """
        x = super()._transform_inputs(inputs)
        if isinstance(x, Tensor):
            check_feature_map(self, x)
        return x

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        """Losses by name, and ``acc_seg`` in percent (1,), from logits (B, classes, h, w)."""
        losses: list[Any] = (
            list(self.loss_decode) if isinstance(self.loss_decode, nn.ModuleList) else [self.loss_decode]
        )
        if self.sampler is not None or not all(_is_plain(loss) for loss in losses):
            return super().loss_by_feat(seg_logits, batch_data_samples)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
        total, correct = upsampled_cross_entropy(
            seg_logits, labels, ignore_index=self.ignore_index, align_corners=self.align_corners
        )
        counted = (labels != self.ignore_index).sum()
        result: dict[str, Tensor] = {}
        for loss in losses:
            pixels = counted if loss.avg_non_ignore else labels.numel()
            value = loss.loss_weight * (total / (pixels + _EPSILON))
            name = loss.loss_name
            result[name] = result[name] + value if name in result else value
        result["acc_seg"] = (correct + _EPSILON).mul(100 / (counted + _EPSILON))[None]
        return result


def _is_plain(loss: nn.Module) -> bool:
    return (
        type(loss) is CrossEntropyLoss
        and not (loss.use_sigmoid or loss.use_mask)
        and loss.class_weight is None
        and loss.reduction == "mean"
    )
