"""What a head, its losses and its pixel sampler have to agree on."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mmengine.fileio import load
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss, DiceLoss, FocalLoss, LovaszLoss, TverskyLoss

from danseg.engine.config.config_parts import Part
from danseg.engine.config.rules.run import Run, has_plain_losses, is_a, is_known, module_of
from danseg.engine.config.signatures import argument
from danseg.segmentors import LeanEncoderDecoder


def binary_heads(run: Run) -> Iterator[str]:
    """``out_channels``, ``num_classes``, ``threshold`` and ``use_sigmoid`` of every head.

    One output channel is a sigmoid for the second of two classes. Everything else needs a channel a class.
    """
    for head in run.heads():
        if not is_a(head, BaseDecodeHead):
            continue
        place, classes = head.place, head.config.get("num_classes")
        channels = outputs(head)
        threshold = head.config.get("threshold")
        if not isinstance(classes, int) or not isinstance(channels, int):
            continue
        if classes < 2:
            yield (
                f"{place}.num_classes={classes}: labels need two classes at least, background and object; "
                f"set {place}.num_classes=2, and for a single output {place}.out_channels=1"
            )
        elif channels not in (1, classes):
            yield (
                f"{place}.out_channels={channels}, but {place}.num_classes={classes}: leave out "
                "out_channels, or set it to 1 with two classes"
            )
        elif channels == 1 and classes != 2:
            yield (
                f"{place}.out_channels=1 tells two classes apart, but {place}.num_classes={classes}: leave "
                "out out_channels, or set num_classes=2"
            )
        if threshold is not None and channels != 1:
            yield (
                f"{place}.threshold={threshold} is read with {place}.out_channels=1 only, which is "
                f"{channels}: leave out threshold, or set out_channels=1"
            )
        elif threshold is not None and not 0 < threshold < 1:
            yield f"{place}.threshold={threshold} is no probability: give a number between 0 and 1"
        if run.task == "train" and channels == 1:
            yield from _binary_losses(run, head)
        elif run.task == "train":
            for loss in run.losses(head):
                if is_a(loss, LovaszLoss) and argument(loss, "loss_type") == "binary":
                    yield (
                        f"{loss.place}.loss_type='binary' with {place}.out_channels={channels}: set "
                        f"{loss.place}.loss_type='multi_class', or out_channels=1 with two classes"
                    )


def _binary_losses(run: Run, head: Part) -> Iterator[str]:
    for loss in run.losses(head):
        sigmoid = argument(loss, "use_sigmoid")
        if is_a(loss, (CrossEntropyLoss, DiceLoss)) and not sigmoid:
            yield (
                f"{loss.place}.use_sigmoid={sigmoid} with {head.place}.out_channels=1: a softmax over one "
                f"channel is always 1, so nothing is learned; set {loss.place}.use_sigmoid=True"
            )
        elif is_a(loss, LovaszLoss) and argument(loss, "loss_type") != "binary":
            yield (
                f"{loss.place}.loss_type={argument(loss, 'loss_type')!r} with {head.place}.out_channels=1: "
                f"set {loss.place}.loss_type='binary'"
            )
        elif is_a(loss, TverskyLoss):
            yield (
                f"{loss.place}.type={loss.config['type']!r} is a softmax over the classes, but "
                f"{head.place}.out_channels=1: use DiceLoss, or out_channels=2"
            )


def outputs(head: Part) -> Any:
    """How many channels a head gives out."""
    channels = argument(head, "out_channels")
    return head.config.get("num_classes") if channels is None else channels


def threshold_unset(run: Run) -> Iterator[str]:
    """A warning: mmseg takes another threshold than one half if none is set."""
    for head in run.heads():
        if is_a(head, BaseDecodeHead) and outputs(head) == 1 and argument(head, "threshold") is None:
            if head.place.startswith("model.decode_head"):
                yield f"{head.place}.threshold is not set: the object is what has a probability above 0.3"


def samplers(run: Run) -> Iterator[str]:
    """``sampler`` (OHEM): its numbers, and whether the head's losses take its weights."""
    for head in run.heads() if run.task == "train" else ():
        for sampler in run.at(f"{head.place}.sampler"):
            threshold, kept = argument(sampler, "thresh"), argument(sampler, "min_kept")
            if isinstance(threshold, (int, float)) and not 0 < threshold <= 1:
                yield f"{sampler.place}.thresh={threshold} is no probability: give a number from 0 to 1"
            if isinstance(kept, int) and kept < 2:
                yield f"{sampler.place}.min_kept={kept}: keep at least two pixels an image"
            if threshold is not None and outputs(head) == 1 and _mmseg_computes_losses(run, head):
                yield (
                    f"{sampler.place}.thresh={threshold} compares with a softmax, but "
                    f"{head.place}.out_channels=1: leave out thresh, or use out_channels=2"
                )
            for loss in run.losses(head):
                if is_a(loss, CrossEntropyLoss) and argument(loss, "use_sigmoid") and outputs(head) != 1:
                    yield (
                        f"{sampler.place} weights pixels, but {loss.place}.use_sigmoid=True has a loss for "
                        "each class of a pixel: leave out one of them"
                    )
                elif not is_a(loss, CrossEntropyLoss) and is_known(loss):
                    yield (
                        f"{sampler.place} weights pixels, which {loss.place}.type={loss.config['type']!r} "
                        "does not take: leave out the sampler, or use CrossEntropyLoss"
                    )


def class_weights(run: Run) -> Iterator[str]:
    """The length of ``class_weight`` of every loss of every head."""
    for head in run.heads() if run.task == "train" else ():
        wanted = outputs(head)
        if not has_plain_losses(head):
            continue
        for loss in run.losses(head):
            weights = loss.config.get("class_weight")
            place = f"{loss.place}.class_weight"
            if weights is None or not isinstance(wanted, int) or not is_known(loss):
                continue
            if isinstance(weights, str):
                weights, problem = _read(weights)
                if problem:
                    yield f"{place}={loss.config['class_weight']!r} {problem}"
                if weights is None:
                    continue
            if not isinstance(weights, Sequence) or not all(isinstance(one, (int, float)) for one in weights):
                yield f"{place}={weights!r}: give one number a class, or a file of them"
            elif len(weights) != wanted:
                channels = "out_channels" if wanted != head.config.get("num_classes") else "num_classes"
                yield (
                    f"{place} has {len(weights)} numbers, but {head.place}.{channels}={wanted}: give one "
                    f"for each"
                )
            elif not all(math.isfinite(one) and one >= 0 for one in weights):
                yield f"{place}={list(weights)}: weights are finite and not negative"
            elif is_a(loss, CrossEntropyLoss) and argument(loss, "use_sigmoid") and wanted > 1:
                if _mmseg_computes_losses(run, head):
                    yield (
                        f"{place} with {loss.place}.use_sigmoid=True: mmseg gives these weights to columns "
                        "of the image, not to classes; leave out one of them"
                    )
            elif is_a(loss, FocalLoss) and not isinstance(weights, list):
                yield f"{place}={weights!r}: FocalLoss takes a list, not a {type(weights).__name__}"


def _mmseg_computes_losses(run: Run, head: Part) -> bool:
    """Whether the losses of a head are mmseg's own code, and not :func:`danseg.heads.loss.head_losses`."""
    return module_of(head).startswith("mmseg.") and not is_a(next(run.at("model"), None), LeanEncoderDecoder)


def _read(path: str) -> tuple[Any, str]:
    """Class weights in a file, and what is wrong with it. mmseg reads the same files."""
    if not path.endswith((".json", ".npy")):
        return None, (
            "is no .json or .npy file: store one number a class in one of these; the other kinds that mmseg "
            "reads, pickles and YAML, can run code"
        )
    if "://" not in path and not os.path.isfile(path):
        return None, f"does not exist (looked for it from {os.getcwd()})"
    try:
        return (np.load(path).tolist() if path.endswith(".npy") else load(path)), ""
    except (OSError, ValueError, TypeError) as error:
        return None, f"cannot be read: {error}"


DISAGREEMENTS = (binary_heads, samplers, class_weights)
WARNINGS = (threshold_unset,)
