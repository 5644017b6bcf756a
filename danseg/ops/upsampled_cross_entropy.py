"""Cross entropy of upsampled logits, without ever holding them at full resolution.

A segmentation network classifies at an eighth of the labels' resolution. The usual form resizes the
logits, takes their log-softmax and keeps both for the backward pass. Each of the two is 64 times as large
as the logits, for each of the network's classifiers. Here one block of rows at a time is upsampled and
compared with its labels, and its gradient is brought back to the logits' resolution at once. Only this
gradient is kept. The backward pass merely scales it.

The forward pass is a custom operator, as in :mod:`danseg.ops.softmax_attention`.
"""

import torch
from torch import Tensor

from danseg.ops.inputs import check_one_device, energy_dtype
from danseg.ops.interpolation import along_rows, bilinear, pieces
from danseg.ops.operator import operator

# A block of upsampled logits takes about this many bytes: few on CPUs, to stay in the caches; many on other
# devices, to keep all their cores busy.
_BLOCK_BYTES = {"cpu": 2**20}
_DEVICE_BLOCK_BYTES = 64 * 2**20


def upsampled_cross_entropy(
    logits: Tensor, labels: Tensor, *, ignore_index: int = 255, align_corners: bool = False
) -> tuple[Tensor, Tensor]:
    """Cross entropy between labels and the logits, bilinearly resized to the labels' size.

    Equivalent plain code, which holds full-resolution logits several times::

        upsampled = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=align_corners)
        loss = F.cross_entropy(upsampled, labels, ignore_index=ignore_index, reduction="sum")
        correct = (upsampled.argmax(1) == labels).sum()

    16-bit logits are resized and compared in float32.

    Args:
        logits: ``(B, C, h, w)``, floating point.
        labels: ``(B, H, W)`` class ids from 0 to C - 1, or ``ignore_index``.
        ignore_index: label of the pixels that do not count.
        align_corners: as in :func:`torch.nn.functional.interpolate`.

    Returns:
        The loss, summed over all pixels that count: 0-d, in at least float32, differentiable once with
        respect to the logits. And the number of pixels whose label has the largest logit, alone or together
        with other classes: 0-d, int64.

    Raises:
        ValueError: when shapes, dtypes or devices do not match, or (on CPUs) when a label is neither a
            class nor ``ignore_index``.
    """
    if logits.dim() != 4 or labels.dim() != 3 or len(logits) != len(labels) or 0 in logits.shape[1:]:
        raise ValueError(
            "upsampled_cross_entropy takes logits (B, C, h, w) and labels (B, H, W), got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if not logits.is_floating_point() or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            "upsampled_cross_entropy takes floating-point logits and whole-number labels, got "
            f"{logits.dtype} and {labels.dtype}"
        )
    check_one_device("upsampled_cross_entropy", logits=logits, labels=labels)
    loss, correct, _ = _upsampled_cross_entropy(logits, labels, ignore_index, align_corners)
    return loss, correct


@operator("danseg.ops.upsampled_cross_entropy", "torch.nn.functional.interpolate and cross_entropy")
def _upsampled_cross_entropy(
    logits: Tensor, labels: Tensor, ignore_index: int, align_corners: bool, with_grad: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, number of correct pixels, and the loss's gradient (B, C, h, w), empty without ``with_grad``."""
    batch, classes, height, width = logits.shape
    rows, columns = labels.shape[1:]
    wide = energy_dtype(logits.dtype)
    loss = logits.new_zeros((), dtype=wide)
    correct = labels.new_zeros((), dtype=torch.int64)
    grad = torch.zeros(logits.shape if with_grad else 0, dtype=wide, device=logits.device)
    budget = _BLOCK_BYTES.get(logits.device.type, _DEVICE_BLOCK_BYTES)
    step = max(1, budget // max(1, classes * columns * wide.itemsize))
    like = logits.new_empty((), dtype=wide)
    vertical = pieces(*bilinear(torch.arange(rows), height, rows, align_corners), step, like)
    horizontal = pieces(*bilinear(torch.arange(columns), width, columns, align_corners), columns, like)
    with torch.autocast(logits.device.type, enabled=False):
        for out_rows, in_rows, along_y in vertical:
            for out_columns, in_columns, along_x in horizontal:
                for b in range(batch):
                    label = labels[b, out_rows, out_columns].reshape(-1).long()  # (P,)
                    counts = label != ignore_index
                    label = label.masked_fill(~counts, 0)
                    _check_labels(label, classes)
                    block = logits[b, :, in_rows, in_columns].to(wide)  # (C, r, w)
                    if along_y is not None:
                        block = along_y @ block
                    block = along_rows(block, along_x)  # (C, R, W)
                    log_p = block.flatten(1).log_softmax(0)  # (C, P)
                    of_label = log_p.gather(0, label[None])[0]
                    loss -= of_label.masked_fill(~counts, 0).sum()
                    correct += ((of_label >= log_p.amax(0)) & counts).sum()
                    if with_grad:
                        slope = log_p.exp_()
                        slope.scatter_add_(0, label[None], slope.new_full((), -1).expand(1, len(label)))
                        slope = slope.mul_(counts).view(block.shape)
                        slope = along_rows(slope, None if along_x is None else along_x.T)
                        if along_y is not None:
                            slope = along_y.T @ slope
                        grad[b, :, in_rows, in_columns] += slope
    return loss, correct, grad


def _check_labels(labels: Tensor, classes: int) -> None:
    if labels.device.type == "cpu" and labels.numel():  # elsewhere the check would wait for the device
        lowest, highest = labels.aminmax()
        if lowest < 0 or highest >= classes:
            wrong = int(lowest if lowest < 0 else highest)
            raise ValueError(
                f"labels must be class ids from 0 to {classes - 1} or ignore_index, got {wrong}; "
                "num_classes must match the data set"
            )


@_upsampled_cross_entropy.register_fake
def _(logits, labels, ignore_index, align_corners, with_grad=False):
    wide = energy_dtype(logits.dtype)
    return (
        logits.new_empty((), dtype=wide),
        labels.new_empty((), dtype=torch.int64),
        torch.empty(logits.shape if with_grad else 0, dtype=wide, device=logits.device),
    )


def _save_for_backward(ctx, inputs, output) -> None:
    ctx.save_for_backward(output[2])
    ctx.dtype = inputs[0].dtype


def _backward(ctx, grad_loss: Tensor):
    (grad,) = ctx.saved_tensors
    return ((grad_loss * grad).to(ctx.dtype),)


_upsampled_cross_entropy.register_gradient(_save_for_backward, _backward)
