"""Say why a loss cannot be computed: from the labels, logits and class weights, not from the error's text.

PyTorch says "Target 19 is out of bounds", a CUDA kernel "device-side assert triggered". The number of classes
may be wrong, but just as well a label, a transform, a class weight or a type.
"""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from danseg.errors import UserError
from danseg.heads.loss import head_losses
from danseg.heads.loss_checks import losses_of
from danseg.io.words import ranges

_ERRORS = (AttributeError, AssertionError, IndexError, RuntimeError, TypeError, ValueError)


@contextmanager
def explaining_losses(network: nn.Module) -> Iterator[None]:
    """Explain an error of a loss during the block; one that the batch does not explain stays as it is.

    Args:
        network: the segmentor that is trained.

    Raises:
        UserError: the labels, the logits or the class weights of the failing batch do not fit.
    """
    try:
        yield
    except _ERRORS as error:
        batch = _failing_batch(error)
        reason = None if batch is None else _reason(network, batch, _logits(error))
        if reason is None:
            raise
        raise UserError(f"the loss cannot be computed: {reason}") from error


def _failing_batch(error: BaseException) -> Sequence[Any] | None:
    """The samples of the batch whose loss failed, as they came from the loader, on the CPU."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    in_a_loss = any(frame.f_code.co_name.startswith("loss") for frame in frames)
    if not in_a_loss and "device-side assert" not in str(error):  # which is raised by a later call
        return None
    for frame in frames:
        batch = frame.f_locals.get("data_batch")
        if isinstance(batch, dict) and batch.get("data_samples"):
            return batch["data_samples"]
    return None


def _logits(error: BaseException) -> list[tuple[nn.Module, Tensor]]:
    """Heads and their logits, of losses that were being computed."""
    return [
        (frame.f_locals[name], frame.f_locals["seg_logits"])
        for frame, _ in traceback.walk_tb(error.__traceback__)
        for function, name in (("loss_by_feat", "self"), (head_losses.__name__, "head"))
        if frame.f_code.co_name == function and isinstance(frame.f_locals.get("seg_logits"), Tensor)
    ]


def _reason(network: nn.Module, samples: Sequence[Any], logits: list[tuple[nn.Module, Tensor]]) -> str | None:
    heads = [(name, part) for name, part in network.named_modules() if isinstance(part, BaseDecodeHead)]
    for sample in samples:
        path = getattr(sample, "seg_map_path", None) or getattr(sample, "img_path", "a sample without a path")
        if "gt_sem_seg" not in sample:
            return (
                f"{path} has no label (gt_sem_seg): put LoadAnnotations or LoadTrainingCrop, and "
                "PackSegInputs, into train_dataloader.dataset.pipeline"
            )
        label = sample.gt_sem_seg.data
        if label.is_floating_point() or label.dtype == torch.bool:
            return (
                f"the label {path} has the type {str(label.dtype).removeprefix('torch.')} after "
                "train_dataloader.dataset.pipeline, and class ids are whole numbers"
            )
        for name, head in heads:
            wrong = _outside(label, head)
            if wrong:
                last = _classes(head) - 1
                return (
                    f"the label {path} has the ids {ranges(wrong)} after train_dataloader.dataset.pipeline, "
                    f"but model.{name} has the classes 0 to {last} (ignored: {head.ignore_index}). Check its "
                    "transforms and their padding, label_map and reduce_zero_label of the data set, and "
                    f"model.{name}.num_classes={head.num_classes}"
                )
    padding = getattr(getattr(network, "data_preprocessor", None), "seg_pad_val", None)
    for name, head in heads:
        if padding is not None and _outside(torch.tensor(padding), head):
            return (
                f"model.data_preprocessor.seg_pad_val={padding} pads labels with an id that is no class, and "
                f"that model.{name}.ignore_index={head.ignore_index} does not ignore"
            )
        channels = next((values.shape[1] for one, values in logits if one is head), head.out_channels)
        for loss in losses_of(head):
            weights = getattr(loss, "class_weight", None)
            if weights is not None and len(weights) != channels:
                return (
                    f"class_weight of a {type(loss).__name__} of model.{name}.loss_decode has {len(weights)} "
                    f"numbers, the head gives out {channels} channels"
                )
    for head, values in logits:
        if values.shape[1] != head.out_channels:
            name = next((name for name, one in heads if one is head), type(head).__name__)
            return (
                f"model.{name} gives out {values.shape[1]} channels, but its out_channels (num_classes) is "
                f"{head.out_channels}"
            )
    return None


def _classes(head: Any) -> int:
    return 2 if head.out_channels == 1 else head.out_channels


def _outside(label: Tensor, head: Any) -> list[int]:
    ids = label.unique()
    return ids[((ids < 0) | (ids >= _classes(head))) & (ids != head.ignore_index)].tolist()
