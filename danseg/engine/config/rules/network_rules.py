"""What backbone, neck, heads, preprocessing and test mode of a network have to agree on."""

from collections.abc import Iterator
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmseg.models.backbones import ResNet
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder

from danseg.datasets.transforms.load_training_crop import LoadTrainingCrop
from danseg.engine.channels import wrong_normalisation
from danseg.engine.config.config_parts import Part, as_dict, resolve
from danseg.engine.config.rules.run import Run, is_a, is_known, takes
from danseg.engine.config.signatures import argument
from danseg.engine.config.type_names import type_name
from danseg.io.words import did_you_mean

_SLIDING = ("mode", "crop_size", "stride")


def colour_channels(run: Run) -> Iterator[str]:
    """``mean`` and ``std`` of the preprocessing, the backbone's ``in_channels``, what pipelines load."""
    preprocessor = run.preprocessor()
    backbone = next(run.at("model.backbone"), None)
    channels = argument(backbone, "in_channels") if backbone is not None else None
    if not isinstance(channels, int) or backbone is None:
        return
    known = f"model.backbone.in_channels={channels}"
    if preprocessor is not None:
        values = {key: preprocessor.config.get(key) for key in ("mean", "std")}
        given_keys = [key for key, value in values.items() if isinstance(value, (list, tuple))]
        if len(given_keys) == 1:
            [given], [other] = given_keys, values.keys() - given_keys
            yield (
                f"{preprocessor.place}.{given} is set and {preprocessor.place}.{other} is not: set both, or "
                "neither"
            )
        elif is_known(preprocessor):
            yield from wrong_normalisation(dict(run.network))
        if "std" in given_keys and 0 in preprocessor.config["std"]:
            yield f"{preprocessor.place}.std={preprocessor.config['std']}: images are divided by it, not by 0"
    for split in run.splits:
        loaders = [
            one for one in run.transforms(split) if resolve(one) in (LoadImageFromFile, LoadTrainingCrop)
        ]
        kinds = {type_name(one.config) for one in run.transforms(split)}
        if kinds & {"ConcatCDInput", "RGB2Gray"} or not all(map(is_known, run.transforms(split))):
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
    """``in_channels`` and ``in_index`` of the heads against the maps of the backbone or an FPN."""
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
    plain = all(isinstance(one, int) for one in (*given_out, depth, base))
    if not (is_a(backbone, ResNet) and is_known(backbone) and plain and depth in built.arch_settings):
        return [None] * len(given_out)
    block, _ = built.arch_settings[depth]
    return [base * 2**index * block.expansion for index in given_out]


def sliding_window(run: Run) -> Iterator[str]:
    """``mode``, ``crop_size`` and ``stride`` of ``model.test_cfg``."""
    test = as_dict(run.network.get("test_cfg"))
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
        elif not _is_pair(value):
            yield f"model.test_cfg.{key}={value!r}: give height and width in pixels"
        else:
            pairs[key] = value
    if len(pairs) == 2 and any(s > c for s, c in zip(pairs["stride"], pairs["crop_size"], strict=True)):
        yield (
            f"model.test_cfg.stride={_plain(pairs['stride'])} is larger than model.test_cfg.crop_size="
            f"{_plain(pairs['crop_size'])}: pixels between the windows would not be predicted"
        )


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(one, int) and one > 0 for one in value)
    )


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
        crop: Any = transform.config.get("crop_size")
        name = type_name(transform.config)
        crop = (crop, crop) if isinstance(crop, int) else crop
        if name not in ("RandomCrop", "LoadTrainingCrop") or not _is_pair(crop) or not _is_pair(size):
            continue
        if any(c > s for c, s in zip(crop, size, strict=True)):
            yield (
                f"{transform.place}.crop_size={_plain(crop)} is larger than {place}.size={_plain(size)}, to "
                "which the crops of a batch are padded"
            )


DISAGREEMENTS = (colour_channels, stages, sliding_window, padded_size)
