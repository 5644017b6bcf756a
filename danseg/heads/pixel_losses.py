"""mmseg's losses, computed from the pixels that count and no others.

In mmseg each loss looks after ignored pixels itself. ``DiceLoss`` counts their probabilities,
``FocalLoss`` divides by their number (and fails without mmcv's operators), ``LovaszLoss`` is NaN where there
are only such pixels, ``TverskyLoss`` has an ``ignore_index`` of its own, and class weights over a sigmoid fit
no image. Here a loss never sees an ignored pixel, and its mean is over the pixels that count.
"""

from collections.abc import Callable
from typing import Any

import torch
from mmseg.models.losses import CrossEntropyLoss, DiceLoss, FocalLoss, LovaszLoss, TverskyLoss, focal_loss
from torch import Tensor
from torch.nn import functional as F

from danseg.mmcv_ops import sigmoid_focal_loss

# mmseg 1.4.2 refuses to build FocalLoss on a machine with a GPU where mmcv has no compiled operators.
if focal_loss._sigmoid_focal_loss is None:
    focal_loss._sigmoid_focal_loss = sigmoid_focal_loss


def pixel_loss(loss: Any, logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """One of mmseg's losses, of the types in :data:`PIXEL_LOSSES`, times its weight.

    Args:
        loss: the loss.
        logits: (B, C, H, W); C is 1 for two classes told apart by a sigmoid.
        labels: (B, H, W) class ids wherever ``counts``.
        counts: (B, H, W), false at ignored pixels.

    Returns:
        0-d; 0 with a gradient of 0 if no pixel counts. Losses of whole images, which are ``DiceLoss``,
        ``TverskyLoss`` and ``LovaszLoss`` with ``per_image``, are averaged over the images in which a pixel
        counts, or summed with ``reduction="sum"``.
    """
    pixels = logits.movedim(1, -1)  # (B, H, W, C)
    if not counts.any():
        return logits.sum() * 0
    if _per_image(loss):
        images = [b for b in range(len(labels)) if counts[b].any()]
        found = [pixel_loss_of(loss, pixels[b][counts[b]], labels[b][counts[b]]) for b in images]
        values = torch.stack(found)
        return values.sum() if getattr(loss, "reduction", "mean") == "sum" else values.mean()
    value = pixel_loss_of(loss, pixels[counts], labels[counts])
    if type(loss) is CrossEntropyLoss and loss.reduction == "mean" and not loss.avg_non_ignore:
        value = value * counts.sum() / counts.numel()  # mmseg divides by the number of all pixels
    return value


def pixel_loss_of(loss: Any, pixels: Tensor, labels: Tensor) -> Tensor:
    """The loss of pixels that all count: (n, C) logits and (n,) labels, n > 0; 0-d."""
    return PIXEL_LOSSES[type(loss)](loss, pixels, labels)


def _per_image(loss: Any) -> bool:
    return isinstance(loss, (DiceLoss, TverskyLoss)) or (isinstance(loss, LovaszLoss) and loss.per_image)


def _one_hot(pixels: Tensor, labels: Tensor) -> Tensor:
    """(n, C), with a single channel 1 where the label is 1."""
    return labels[:, None] if pixels.shape[1] == 1 else F.one_hot(labels.long(), pixels.shape[1])


def _as_image(values: Tensor) -> Tensor:
    """(n, C) to (1, C, n, 1)."""
    return values.T[None, :, :, None].contiguous()


def _sigmoid_cross_entropy(loss: Any, pixels: Tensor, labels: Tensor) -> Tensor:
    weight = None if loss.class_weight is None else pixels.new_tensor(loss.class_weight)  # of positives
    target = _one_hot(pixels, labels).to(pixels)
    return loss.loss_weight * F.binary_cross_entropy_with_logits(
        pixels, target, pos_weight=weight, reduction=loss.reduction
    )


def _dice(loss: Any, pixels: Tensor, labels: Tensor) -> Tensor:
    # Given class ids for a single channel, mmseg takes class 0 for what the channel shows.
    return loss(_as_image(pixels), _as_image(_one_hot(pixels, labels)))


def _focal(loss: Any, pixels: Tensor, labels: Tensor) -> Tensor:
    # FocalLoss.forward mixes up the columns of its target on CPUs, and needs mmcv's operator elsewhere.
    return loss.loss_weight * focal_loss.py_sigmoid_focal_loss(
        pixels,
        _one_hot(pixels, labels),
        gamma=loss.gamma,
        alpha=loss.alpha,
        class_weight=loss.class_weight,
        reduction=loss.reduction,
    )


def _lovasz(loss: Any, pixels: Tensor, labels: Tensor) -> Tensor:
    # mmseg multiplies with numbers in float32.
    return loss(_as_image(pixels.float()), labels[None, :, None], ignore_index=None).to(pixels.dtype)


def _tversky(loss: Any, pixels: Tensor, labels: Tensor) -> Tensor:
    return loss(_as_image(pixels), labels[None, :, None])


PIXEL_LOSSES: dict[type, Callable[[Any, Tensor, Tensor], Tensor]] = {
    CrossEntropyLoss: _sigmoid_cross_entropy,
    DiceLoss: _dice,
    FocalLoss: _focal,
    LovaszLoss: _lovasz,
    TverskyLoss: _tversky,
}
