"""Which losses a head can be trained with; the others are refused, with the fix."""

import inspect
from collections.abc import Iterator
from typing import Any

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    HuasdorffDisstanceLoss,
    LovaszLoss,
    TverskyLoss,
)
from mmseg.models.losses.lovasz_loss import lovasz_hinge
from torch import nn

from danseg.errors import UserError


def losses_of(head: BaseDecodeHead) -> list[Any]:
    """The head's losses in the order of its config."""
    return list(head.loss_decode) if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]


def over_softmax(loss: nn.Module) -> bool:
    """Whether it is mmseg's cross entropy over a softmax, and no class derived from it."""
    return type(loss) is CrossEntropyLoss and not (loss.use_sigmoid or loss.use_mask)


def between_classes(loss: nn.Module, channels: int) -> bool:
    """Whether it is mmseg's cross entropy between classes: over a softmax, or over one channel's sigmoid."""
    return over_softmax(loss) or (type(loss) is CrossEntropyLoss and channels == 1 and not loss.use_mask)


def check_losses(head: BaseDecodeHead, place: str = "", *, names_alone: bool = False) -> None:
    """Refuse losses that mmseg would silently not train, or get wrong, or fail with.

    Args:
        head: any head of mmseg's kind.
        place: where it stands in the config, such as ``model.decode_head``; for the message.
        names_alone: check only that all losses are trained; for heads that call their losses themselves.

    Raises:
        UserError: naming the head, the key and value, and what to write instead.
    """
    for problem in _names(head) if names_alone else (*_names(head), *_problems(head)):
        kind = type(head).__name__
        raise UserError(f"{place} ({kind}): {problem}" if place else f"{kind}: {problem}")


def _names(head: BaseDecodeHead) -> Iterator[str]:
    for loss in losses_of(head):
        name = getattr(loss, "loss_name", "loss")  # heads that call their losses themselves may need none
        if "loss" not in name:
            yield (
                f"{type(loss).__name__} has loss_name={name!r}. Only losses with 'loss' in their name are "
                f"trained, the others are just logged; call it loss_name='loss_{name}'"
            )


def _problems(head: BaseDecodeHead) -> Iterator[str]:
    if not isinstance(head.ignore_index, int):
        yield f"ignore_index={head.ignore_index!r} is no label; use one that no class has, such as 255"
    if head.out_channels == 1 and head.num_classes > 2:
        yield (
            f"one output channel tells 2 classes apart, not num_classes={head.num_classes}; "
            "leave out out_channels=1"
        )
    if head.out_channels == 1 and not 0 < head.threshold < 1:
        yield f"threshold={head.threshold} is no probability between 0 and 1; give one, such as 0.5"
    for loss in losses_of(head):
        kind = type(loss).__name__
        for problem in (*_unfit(loss), *_reduction(loss), *_channels(loss, head.out_channels)):
            yield f"{kind} {problem}"
        between = between_classes(loss, head.out_channels)
        if head.sampler is not None and type(loss) in _OF_MMSEG and not between:
            sigmoid = " with a sigmoid for each class" if isinstance(loss, CrossEntropyLoss) else ""
            yield (
                f"sampler={type(head.sampler).__name__} chooses pixels for CrossEntropyLoss alone, not for "
                f"{kind}{sigmoid}; leave out the sampler or that loss"
            )


_OF_MMSEG = (CrossEntropyLoss, DiceLoss, FocalLoss, LovaszLoss, TverskyLoss)

_INSTEAD = {
    "BoundaryLoss": "It is for PIDNet's boundary branch. Use LovaszLoss or DiceLoss beside CrossEntropyLoss",
    "OhemCrossEntropy": (
        "Use CrossEntropyLoss and, in the head, sampler=dict(type='OHEMPixelSampler', thresh=0.7, "
        "min_kept=100000)"
    ),
    "SiLogLoss": "It is for depths. Use CrossEntropyLoss",
}


def _unfit(loss: Any) -> Iterator[str]:
    """Losses that a head cannot call, or whose equation is not the paper's."""
    parameters = inspect.signature(loss.forward).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        missing = [key for key in ("weight", "ignore_index") if key not in parameters]
        if missing:
            instead = _INSTEAD.get(type(loss).__name__, "Add **kwargs to its forward")
            yield f"does not take {' and '.join(missing)}, which heads pass to every loss. {instead}"
    if type(loss) is HuasdorffDisstanceLoss:
        yield (
            "subtracts class ids from probabilities and counts ignored pixels as background in mmseg, so its "
            "values mean nothing. Use LovaszLoss, TverskyLoss or DiceLoss beside CrossEntropyLoss"
        )
    if type(loss) is CrossEntropyLoss and loss.use_mask:
        yield "with use_mask=True is for detected objects; leave out use_mask, or set use_sigmoid=True"
    if type(loss) is DiceLoss and not loss.activate:
        yield "with activate=False takes probabilities, but heads give logits; leave out activate"


def _reduction(loss: Any) -> Iterator[str]:
    reduction = getattr(loss, "reduction", "mean")
    if type(loss) not in _OF_MMSEG or reduction in ("mean", "sum"):
        return
    if not (type(loss) is LovaszLoss and not loss.per_image):  # for which mmseg demands "none"
        yield f"with reduction={reduction!r} gives no single number to train on; use 'mean' or 'sum'"


def _channels(loss: Any, channels: int) -> Iterator[str]:
    """What does not go with the number of output channels."""
    hinge = type(loss) is LovaszLoss and loss.cls_criterion is lovasz_hinge
    if channels == 1:
        if over_softmax(loss) or (type(loss) is DiceLoss and not loss.use_sigmoid):
            yield "over a softmax of one output channel trains nothing; set use_sigmoid=True"
        if type(loss) is LovaszLoss and not hinge:
            yield "over a softmax of one output channel trains nothing; set loss_type='binary'"
        if type(loss) is TverskyLoss:
            yield (
                "over a softmax of one output channel trains nothing; leave out out_channels=1, or use "
                "DiceLoss"
            )
    elif hinge:
        yield f"with loss_type='binary' needs out_channels=1, got {channels}; set loss_type='multi_class'"
    if type(loss) not in _OF_MMSEG:
        return
    weights = getattr(loss, "class_weight", None)
    if weights is not None and hinge:
        yield "with loss_type='binary' does not read class_weight; leave it out"
    alpha = getattr(loss, "alpha", None)
    for key, values in (("class_weight", weights), ("alpha", alpha if isinstance(alpha, list) else None)):
        if values is not None and len(values) != channels:
            binary = channels == 1 and type(loss) is CrossEntropyLoss
            meaning = ", how much more a pixel of class 1 weighs than one of class 0" if binary else ""
            yield (
                f"has {len(values)} numbers in {key}, but the head has out_channels={channels}; "
                f"give {channels}{meaning}"
            )
