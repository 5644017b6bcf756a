"""The heads' losses: cross entropy in bounded memory, other losses on the pixels that count."""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.structures import OHEMPixelSampler
from torch import Tensor

from danseg.attention.parts.arguments import check_feature_map
from danseg.heads.loss_checks import between_classes, check_losses, losses_of
from danseg.heads.pixel_losses import PIXEL_LOSSES, pixel_loss
from danseg.ops import upsampled_argmax, upsampled_cross_entropy
from danseg.ops.inputs import energy_dtype
from danseg.ops.upsampled_cross_entropy import check_labels, upsampled_pixel_losses

# Avoids a division by 0 where every label is ignored; the value is mmseg's.
_EPSILON = 1.1920929e-07


class UpsampledLoss(BaseDecodeHead):
    """A mixin for mmseg's heads: a check of their input, and their losses by :func:`head_losses`.

    What cannot be trained is refused before the training, when its runner calls ``init_weights``.
    """

    def init_weights(self) -> None:
        check_losses(self)
        super().init_weights()

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
        return head_losses(self, seg_logits, batch_data_samples)


def head_losses(head: BaseDecodeHead, seg_logits: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
    """The losses of a head, as its config names them, and its accuracy. Ignored pixels get no gradient.

    * mmseg's ``CrossEntropyLoss`` over a softmax, or over the sigmoid of a single channel, weighted or not,
      and with hard pixels chosen by its ``OHEMPixelSampler``, needs no logits at the labels' resolution
      (:func:`danseg.ops.upsampled_cross_entropy`). By default mmseg divides the sum over the pixels that
      count, or that the sampler chose, by the number of *all* pixels, with ``avg_non_ignore=True`` by the
      number of those that are not ignored, and a softmax with ``class_weight`` by the sum of their weights.
    * The other losses of mmseg see the pixels that count and no others
      (:func:`danseg.heads.pixel_losses.pixel_loss`).
    * A loss of another type gets all logits at the labels' resolution, as in mmseg.

    If all pixels are ignored, every loss of mmseg is 0, with gradients of 0.

    Args:
        head: any head of mmseg's kind.
        seg_logits: (B, channels, h, w); one channel, or one for each class.
        batch_data_samples: B samples with ``gt_sem_seg``.

    Returns:
        Losses by ``loss_name``, those of one name summed, and ``acc_seg``: how many percent of the pixels
        that count have the label that prediction would give them, (1,).

    Raises:
        UserError: see :func:`danseg.heads.loss_checks.check_losses`.
        ValueError: a label is neither a class nor ``ignore_index``.
    """
    check_losses(head)
    losses = losses_of(head)
    labels = head._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
    counts = labels != head.ignore_index
    how = dict(align_corners=head.align_corners)
    bounded = [between_classes(loss, head.out_channels) for loss in losses]
    scores = seg_logits  # of the classes; a sigmoid is the softmax over 0 and its logit
    if head.out_channels == 1:
        scores = torch.cat([torch.zeros_like(seg_logits), seg_logits], dim=1)
    upsampled: Any = None  # (B, channels, H, W), where something needs it
    if type(head.sampler) not in (type(None), OHEMPixelSampler) or not all(bounded):
        wide = seg_logits.to(energy_dtype(seg_logits.dtype))
        upsampled = resize(wide, size=labels.shape[1:], mode="bilinear", **how)
        # On a GPU, a kernel that indexes by a wrong label ends the process without naming it. The operators
        # look at the labels themselves, and a GPU is waited for each time.
        check_labels(labels.masked_fill(~counts, 0), scores.shape[1])
    chosen = _chosen(head, scores, upsampled, labels, counts)
    totals: dict[Any, tuple[Tensor, Tensor]] = {}  # a loss with the same weights is computed once
    correct = None
    result: dict[str, Tensor] = {}
    for loss, is_bounded in zip(losses, bounded, strict=True):
        if is_bounded:
            of_class = _class_weights(loss, scores, labels, counts)
            key = None if loss.class_weight is None else tuple(loss.class_weight)
            if key not in totals:
                weight = of_class if chosen is None else chosen if of_class is None else of_class * chosen
                totals[key] = upsampled_cross_entropy(
                    scores, labels, weight=weight, ignore_index=head.ignore_index, **how
                )
            total, correct = totals[key]
            value = loss.loss_weight * (total / _divisor(loss, labels, counts, of_class))
        elif type(loss) in PIXEL_LOSSES:
            value = pixel_loss(loss, upsampled, labels, counts)
        else:
            value = loss(upsampled, labels, weight=chosen, ignore_index=head.ignore_index)
        name = loss.loss_name
        result[name] = result[name] + value if name in result else value
    if correct is None or head.out_channels == 1:
        threshold = head.threshold if head.out_channels == 1 else None
        predicted = upsampled_argmax(seg_logits, labels.shape[1:], threshold=threshold, **how)
        correct = ((predicted == labels) & counts).sum()
    counted = counts.sum()
    result["acc_seg"] = (correct + _EPSILON).mul(100 / (counted + _EPSILON))[None]
    return result


def _class_weights(loss: Any, logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor | None:
    """The weight (B, H, W) of each pixel's class, 0 at ignored pixels; None if all classes weigh the same."""
    if loss.class_weight is None:
        return None
    # Over a sigmoid there is one weight, that of class 1.
    weights = [1.0, *loss.class_weight] if loss.use_sigmoid else loss.class_weight
    weights = torch.as_tensor(weights, dtype=energy_dtype(logits.dtype), device=logits.device)
    classes = labels.clamp(0, len(weights) - 1).long()  # the operator refuses labels outside
    return weights[classes].masked_fill(~counts, 0)


def _divisor(loss: Any, labels: Tensor, counts: Tensor, of_class: Tensor | None) -> Tensor | float:
    if loss.reduction == "sum":
        return 1.0
    if of_class is not None and not loss.use_sigmoid:
        return of_class.sum() + _EPSILON
    return (counts.sum() if loss.avg_non_ignore else labels.numel()) + _EPSILON


@torch.no_grad()
def _chosen(
    head: BaseDecodeHead, logits: Tensor, upsampled: Tensor | None, labels: Tensor, counts: Tensor
) -> Tensor | None:
    """The sampler's weights (B, H, W): 1 at the pixels to train on, 0 at others; None without a sampler."""
    sampler = head.sampler
    if sampler is None:
        return None
    if upsampled is not None:
        return sampler.sample(upsampled, labels[:, None])
    pixels = upsampled_pixel_losses(
        logits, labels, ignore_index=head.ignore_index, align_corners=head.align_corners
    )
    kept = sampler.min_kept * len(labels)
    if sampler.thresh is None:  # the largest losses
        total = torch.zeros_like(pixels)
        for loss in losses_of(head):
            of_class = _class_weights(loss, logits, labels, counts)
            total += loss.loss_weight * (pixels if of_class is None else of_class * pixels)
        hardest = total[counts].sort(descending=True).indices[:kept]
        hard = torch.zeros_like(total[counts]).index_fill_(0, hardest, 1)
    else:  # the smallest probabilities of the label
        probability = (-pixels[counts]).exp()
        ordered = probability.sort().values[: kept + 1]
        hard = (probability < ordered[-1:].clamp(min=sampler.thresh)).to(pixels)
    return torch.zeros_like(pixels).masked_scatter_(counts, hard)
