"""What heads, losses, backbone, preprocessing and test mode of a network have to agree on."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import load
from mmseg.models.backbones import ResNet
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss, FocalLoss, LovaszLoss, TverskyLoss
from mmseg.models.segmentors import EncoderDecoder

from danseg.datasets.transforms.load_training_crop import LoadTrainingCrop
from danseg.engine.building import Part, argument, did_you_mean, resolve
from danseg.engine.rules.run import Run, is_a, takes

_SLIDING = ("mode", "crop_size", "stride")


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
                f"{place}.num_classes={classes}: labels need two classes at least, background and object; set "
                f"{place}.num_classes=2, and for a single output {place}.out_channels=1"
            )
        elif channels not in (1, classes):
            yield (
                f"{place}.out_channels={channels}, but {place}.num_classes={classes}: leave out out_channels, "
                "or set it to 1 with two classes"
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


def _binary_losses(run: Run, head: Part) -> Iterator[str]:
    for loss in run.losses(head):
        sigmoid = argument(loss, "use_sigmoid")
        if is_a(loss, CrossEntropyLoss) and not sigmoid:
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
            if threshold is not None and outputs(head) == 1:
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
                elif not is_a(loss, CrossEntropyLoss) and str(_module(loss)).startswith("mmseg."):
                    yield (
                        f"{sampler.place} weights pixels, which {loss.place}.type={loss.config['type']!r} "
                        "does not take: leave out the sampler, or use CrossEntropyLoss"
                    )


def _module(part: Part) -> str | None:
    return getattr(resolve(part), "__module__", None)


def class_weights(run: Run) -> Iterator[str]:
    """The length of ``class_weight`` of every loss of every head."""
    for head in run.heads() if run.task == "train" else ():
        wanted = outputs(head)
        if not _has_plain_losses(head):
            continue
        for loss in run.losses(head):
            weights = loss.config.get("class_weight")
            place = f"{loss.place}.class_weight"
            if weights is None or not isinstance(wanted, int):
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
            elif is_a(loss, FocalLoss) and not isinstance(weights, list):
                yield f"{place}={weights!r}: FocalLoss takes a list, not a {type(weights).__name__}"


def _has_plain_losses(head: Part) -> bool:
    """Whether a head compares its channels with the labels as mmseg's heads do; SAN's has one for no class."""
    own = getattr(resolve(head), "loss_by_feat", None)
    return own is BaseDecodeHead.loss_by_feat or str(getattr(own, "__module__", "")).startswith("danseg.")


def _read(path: str) -> tuple[Any, str]:
    """Class weights in a file, and what is wrong with it; a pickle, which could run code, is left to mmseg."""
    if path.endswith((".pkl", ".pickle")):
        return None, ""
    if "://" not in path and not os.path.isfile(path):
        return None, f"does not exist (looked for it from {os.getcwd()})"
    try:
        return (np.load(path).tolist() if path.endswith(".npy") else load(path)), ""
    except (OSError, ValueError, TypeError) as error:
        return None, f"cannot be read: {error}"


def colour_channels(run: Run) -> Iterator[str]:
    """``mean`` and ``std`` of the preprocessing, the backbone's ``in_channels``, and what the pipelines load."""
    preprocessor = run.preprocessor()
    backbone = next(run.at("model.backbone"), None)
    channels = argument(backbone, "in_channels") if backbone is not None else None
    if not isinstance(channels, int) or backbone is None:
        return
    known = f"model.backbone.in_channels={channels}"
    if preprocessor is not None:
        lengths = {
            key: len(value)
            for key in ("mean", "std")
            if isinstance(value := preprocessor.config.get(key), (list, tuple))
        }
        for key, length in lengths.items():
            if length not in (1, channels):
                yield f"{preprocessor.place}.{key} has {length} numbers, but {known}: give one a channel"
        if len(lengths) == 1:
            given, other = *lengths, ({"mean", "std"} - set(lengths)).pop()
            yield (
                f"{preprocessor.place}.{given} is set and {preprocessor.place}.{other} is not: set both, or "
                "neither"
            )
        if 0 in (preprocessor.config.get("std") or ()):
            yield f"{preprocessor.place}.std={preprocessor.config['std']}: images are divided by it, not by 0"
    for split in run.splits:
        loaders = [one for one in run.transforms(split) if is_a(one, (LoadImageFromFile, LoadTrainingCrop))]
        kinds = {str(one.config.get("type")).rpartition(".")[2] for one in run.transforms(split)}
        if kinds & {"ConcatCDInput", "RGB2Gray"} or not all(
            str(_module(one)).startswith(("mmcv.", "mmseg.", "danseg.")) for one in run.transforms(split)
        ):
            continue  # these change the channels, or may
        for loader in loaders:
            colour = argument(loader, "color_type") or "color"
            loaded = {"color": 3, "grayscale": 1}.get(colour)
            if loaded is not None and loaded != channels:
                yield (
                    f"{loader.place}.type={loader.config['type']!r} loads {loaded} channels"
                    f"{'' if colour == 'color' else ' of color_type=' + repr(colour)}, but {known}"
                )


def stages(run: Run) -> Iterator[str]:
    """``in_channels`` and ``in_index`` of the heads against the stages that the backbone or an FPN gives out."""
    backbone = next(run.at("model.backbone"), None)
    if backbone is None:
        return
    widths = _widths(backbone)
    source = "the backbone"
    neck = run.network.get("neck")
    if neck is not None:
        source = "the neck"
        if not isinstance(neck, dict) or neck.get("type") != "FPN":
            return
        inner = neck.get("in_channels")
        if widths and isinstance(inner, (list, tuple)) and None not in widths and list(inner) != widths:
            yield f"model.neck.in_channels={list(inner)}, but the backbone's stages have {widths} channels"
        number = neck.get("num_outs")
        widths = [neck.get("out_channels")] * number if isinstance(number, int) else None
    if not widths:
        return
    for head in run.heads():
        indices, channels = argument(head, "in_index"), head.config.get("in_channels")
        for index, width in _pairs(indices, channels):
            if not -len(widths) <= index < len(widths):
                yield (
                    f"{head.place}.in_index={_plain(indices)}, but {source} gives out {len(widths)} maps: "
                    f"choose from 0 to {len(widths) - 1}"
                )
            elif isinstance(width, int) and widths[index] not in (None, width):
                yield (
                    f"{head.place}.in_channels={_plain(channels)}, but map {index} of {source} has "
                    f"{widths[index]} channels"
                )
        if isinstance(indices, (list, tuple)) and isinstance(channels, (list, tuple)):
            if len(indices) != len(channels):
                yield (
                    f"{head.place}.in_index={_plain(indices)} and {head.place}.in_channels="
                    f"{_plain(channels)}: give as many of both"
                )
        if is_a(head, BaseDecodeHead) and head.config.get("input_transform") is not None:
            if not isinstance(indices, (list, tuple)) or not isinstance(channels, (list, tuple)):
                yield (
                    f"{head.place}.input_transform={head.config['input_transform']!r} takes lists, but "
                    f"{head.place}.in_index={_plain(indices)} and {head.place}.in_channels={_plain(channels)}"
                )


def _pairs(indices: Any, channels: Any) -> list[tuple[int, Any]]:
    if isinstance(indices, int) and not isinstance(channels, (list, tuple)):
        return [(indices, channels)]
    if isinstance(indices, (list, tuple)) and isinstance(channels, (list, tuple)):
        return list(zip(indices, channels, strict=False))
    return []


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _widths(backbone: Part) -> list[int | None] | None:
    """Channels of the maps that a backbone gives out; None for a map whose channels are not known."""
    given_out = argument(backbone, "out_indices")
    if not isinstance(given_out, (list, tuple)):
        return None
    built: Any = resolve(backbone)
    depth, base = argument(backbone, "depth"), argument(backbone, "base_channels")
    if not is_a(backbone, ResNet) or depth not in built.arch_settings or not isinstance(base, int):
        return [None] * len(given_out)
    block, _ = built.arch_settings[depth]
    return [base * 2**index * block.expansion for index in given_out]


def sliding_window(run: Run) -> Iterator[str]:
    """``mode``, ``crop_size`` and ``stride`` of ``model.test_cfg``."""
    test = run.network.get("test_cfg") or {}
    mode = test.get("mode", "whole")
    for key in set(test) - set(_SLIDING):
        hint = did_you_mean(key, set(_SLIDING) - set(test))
        if hint:
            yield f"model.test_cfg.{key}={test[key]!r}: nothing reads it{hint}"
    model = next(run.at("model"), None)
    inference = getattr(resolve(model), "inference", None) if model is not None else None
    if mode not in ("slide", "whole") and inference is EncoderDecoder.inference:
        yield f"model.test_cfg.mode={mode!r}: choose 'slide' or 'whole'"
    if mode != "slide":
        return
    pairs = {}
    for key in ("crop_size", "stride"):
        value = test.get(key)
        if value is None:
            yield f"model.test_cfg.{key} is missing, but model.test_cfg.mode='slide' needs it: height, width"
        elif not isinstance(value, (list, tuple)) or len(value) != 2 or not all(_positive(n) for n in value):
            yield f"model.test_cfg.{key}={value!r}: give height and width in pixels"
        else:
            pairs[key] = value
    if len(pairs) == 2 and any(s > c for s, c in zip(pairs["stride"], pairs["crop_size"], strict=True)):
        yield (
            f"model.test_cfg.stride={_plain(pairs['stride'])} is larger than model.test_cfg.crop_size="
            f"{_plain(pairs['crop_size'])}: pixels between the windows would not be predicted"
        )


def _positive(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def padded_size(run: Run) -> Iterator[str]:
    """The size to which a batch of crops is padded in training."""
    preprocessor = run.preprocessor()
    if run.task != "train" or "train" not in run.splits:
        return
    if preprocessor is None:
        if not run.network.get("data_preprocessor"):
            yield "model.data_preprocessor is missing: mmseg's is dict(type='SegDataPreProcessor', size=CROP)"
        return
    if not takes(preprocessor, "size_divisor") or not takes(preprocessor, "seg_pad_val"):
        return
    place = preprocessor.place
    size, divisor = argument(preprocessor, "size"), argument(preprocessor, "size_divisor")
    if (size is None) == (divisor is None):
        number = "neither" if size is None else "both"
        yield (
            f"{place}.size={_plain(size)} and {place}.size_divisor={divisor}: {number} given; give one of "
            "them, the size of the training's crop for example"
        )
        return
    for transform in run.transforms("train"):
        crop = transform.config.get("crop_size")
        name = str(transform.config.get("type")).rpartition(".")[2]
        if size is None or crop is None or name not in ("RandomCrop", "LoadTrainingCrop"):
            continue
        crop = (crop, crop) if isinstance(crop, int) else tuple(crop)
        if any(c > s for c, s in zip(crop, tuple(size), strict=False)):
            yield (
                f"{transform.place}.crop_size={list(crop)} is larger than {place}.size={_plain(size)}, to "
                "which the crops of a batch are padded"
            )


DISAGREEMENTS = (
    binary_heads,
    samplers,
    class_weights,
    colour_channels,
    stages,
    sliding_window,
    padded_size,
)
WARNINGS = (threshold_unset,)
