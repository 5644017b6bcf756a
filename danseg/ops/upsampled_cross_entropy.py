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
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = 255,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cross entropy between labels and the logits, bilinearly resized to the labels' size.

    Equivalent plain code, which holds full-resolution logits several times::

        upsampled = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=align_corners)
        losses = F.cross_entropy(upsampled, labels, ignore_index=ignore_index, reduction="none")
        loss = (losses * weight).sum()  # or losses.sum()
        correct = (upsampled.argmax(1) == labels).sum()

    16-bit logits are resized and compared in float32.

    Args:
        logits: ``(B, C, h, w)``, floating point.
        labels: ``(B, H, W)`` class ids from 0 to C - 1, or ``ignore_index``.
        weight: ``(B, H, W)``, what each pixel's loss is multiplied by: the weights of its class
            (``class_weight[label]``), or 1 at chosen pixels and 0 elsewhere. Without a gradient.
        ignore_index: label of the pixels that do not count.
        align_corners: as in :func:`torch.nn.functional.interpolate`.

    Returns:
        The loss, summed over all pixels that count: 0-d, in at least float32, differentiable once with
        respect to the logits. And the number of pixels whose label has the largest logit, alone or together
        with other classes, whatever their weight: 0-d, int64.

    Raises:
        ValueError: when shapes, dtypes or devices do not match, when ``weight`` requires a gradient, or
            when a label is neither a class nor ``ignore_index``; to see this, the call waits for a GPU once.
    """
    _check_inputs("upsampled_cross_entropy", logits, labels)
    if weight is not None and weight.shape != labels.shape:
        raise ValueError(
            "upsampled_cross_entropy takes a weight for each pixel, in the labels' shape "
            f"{tuple(labels.shape)}, got {tuple(weight.shape)}; for weights of classes pass weights[labels]"
        )
    if weight is not None:
        check_one_device("upsampled_cross_entropy", logits=logits, weight=weight)
    if weight is not None and weight.requires_grad:
        raise ValueError("upsampled_cross_entropy gives weights no gradient; pass weight.detach()")
    return _upsampled_cross_entropy(logits, labels, weight, ignore_index, align_corners, False)[:2]


@torch.no_grad()
def upsampled_pixel_losses(
    logits: Tensor, labels: Tensor, *, ignore_index: int = 255, align_corners: bool = False
) -> Tensor:
    """The loss of every pixel, to choose pixels by; :func:`upsampled_cross_entropy` is their weighted sum.

    Args:
        logits, labels, ignore_index, align_corners: as for :func:`upsampled_cross_entropy`.

    Returns:
        ``(B, H, W)``, in at least float32, 0 at ignored pixels; without a gradient.

    Raises:
        ValueError: as for :func:`upsampled_cross_entropy`.
    """
    _check_inputs("upsampled_pixel_losses", logits, labels)
    return _upsampled_cross_entropy(logits, labels, None, ignore_index, align_corners, True)[3]


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise a ValueError that names a label outside 0..classes - 1. On a GPU this waits for the device."""
    if labels.numel():
        lowest, highest = torch.stack(labels.aminmax()).tolist()  # waits once
        if lowest < 0 or highest >= classes:
            wrong = lowest if lowest < 0 else highest
            raise ValueError(
                f"labels must be class ids from 0 to {classes - 1} or ignore_index, got {wrong}; "
                "num_classes must match the data set"
            )


def _check_inputs(name: str, logits: Tensor, labels: Tensor) -> None:
    if logits.dim() != 4 or labels.dim() != 3 or len(logits) != len(labels) or 0 in logits.shape[1:]:
        raise ValueError(
            f"{name} takes logits (B, C, h, w) and labels (B, H, W), got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not logits.is_floating_point() or not whole:
        raise ValueError(
            f"{name} takes floating-point logits and whole-number labels, got "
            f"{logits.dtype} and {labels.dtype}"
        )
    check_one_device(name, logits=logits, labels=labels)


@operator("danseg.ops.upsampled_cross_entropy", "torch.nn.functional.interpolate and cross_entropy")
def _upsampled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    align_corners: bool,
    with_pixels: bool,
    with_grad: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, number of correct pixels, the loss's gradient (B, C, h, w), and the pixels' losses (B, H, W).

    The last two are empty unless ``with_grad`` and ``with_pixels`` ask for them.
    """
    batch, classes, height, width = logits.shape
    rows, columns = labels.shape[1:]
    wide = energy_dtype(logits.dtype)
    loss = logits.new_zeros((), dtype=wide)
    correct = labels.new_zeros((), dtype=torch.int64)
    grad = torch.zeros(logits.shape if with_grad else 0, dtype=wide, device=logits.device)
    pixels = torch.zeros(labels.shape if with_pixels else 0, dtype=wide, device=logits.device)
    budget = _BLOCK_BYTES.get(logits.device.type, _DEVICE_BLOCK_BYTES)
    step = max(1, budget // max(1, classes * columns * wide.itemsize))
    like = logits.new_empty((), dtype=wide)
    vertical = pieces(lambda i: bilinear(i, height, rows, align_corners), (0, rows), step, like)
    horizontal = pieces(
        lambda i: bilinear(i, width, columns, align_corners), (0, columns), max(1, columns), like
    )
    # Before the loop: at a label that is no class, a CUDA kernel ends the process's use of the GPU. After the
    # matrices: this waits for the GPU.
    check_labels(labels.masked_fill(labels == ignore_index, 0), classes)
    with torch.autocast(logits.device.type, enabled=False):
        for out_rows, in_rows, along_y in vertical:
            for out_columns, in_columns, along_x in horizontal:
                for b in range(batch):
                    label = labels[b, out_rows, out_columns].reshape(-1).long()  # (P,)
                    counts = label != ignore_index
                    label = label.masked_fill(~counts, 0)
                    block = logits[b, :, in_rows, in_columns].to(wide)  # (C, r, w)
                    if along_y is not None:
                        block = along_y @ block
                    block = along_rows(block, along_x)  # (C, R, W)
                    log_p = block.flatten(1).log_softmax(0)  # (C, P)
                    of_label = log_p.gather(0, label[None])[0]
                    correct += ((of_label >= log_p.amax(0)) & counts).sum()
                    of_label = of_label.masked_fill(~counts, 0)
                    factor = counts
                    if weight is not None:
                        factor = weight[b, out_rows, out_columns].reshape(-1).to(wide).masked_fill(~counts, 0)
                        of_label = of_label * factor
                    loss -= of_label.sum()
                    if with_pixels:
                        pixels[b, out_rows, out_columns] = -of_label.view(block.shape[1:])
                    if with_grad:
                        slope = log_p.exp_()
                        slope.scatter_add_(0, label[None], slope.new_full((), -1).expand(1, len(label)))
                        slope = slope.mul_(factor).view(block.shape)
                        slope = along_rows(slope, None if along_x is None else along_x.T)
                        if along_y is not None:
                            slope = along_y.T @ slope
                        grad[b, :, in_rows, in_columns] += slope
    return loss, correct, grad, pixels


@_upsampled_cross_entropy.register_fake
def _(logits, labels, weight, ignore_index, align_corners, with_pixels, with_grad=False):
    wide = energy_dtype(logits.dtype)
    return (
        logits.new_empty((), dtype=wide),
        labels.new_empty((), dtype=torch.int64),
        torch.empty(logits.shape if with_grad else 0, dtype=wide, device=logits.device),
        torch.empty(labels.shape if with_pixels else 0, dtype=wide, device=logits.device),
    )


def _save_for_backward(ctx, inputs, output) -> None:
    ctx.save_for_backward(output[2])
    ctx.dtype = inputs[0].dtype


def _backward(ctx, grad_loss: Tensor):
    (grad,) = ctx.saved_tensors
    return ((grad_loss * grad).to(ctx.dtype),)


_upsampled_cross_entropy.register_gradient(_save_for_backward, _backward)
