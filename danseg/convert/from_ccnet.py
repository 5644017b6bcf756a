"""CCNet in its authors' layout (https://github.com/speedinghzl/CCNet).

The stem has three convolutions of 64, 64 and 128 channels, its pooling rounds sizes up, the head and the
auxiliary head have leaky ReLUs, images come in BGR with a mean and no deviation, and logits are resized with
their corners aligned.

All norms are those of In-Place Activated BatchNorm, whose factor is ``|weight| + eps``: a plain norm computes
the same with that as its weight. The auxiliary head's convolution has a bias before its norm, which becomes a
part of the norm's mean.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from danseg.convert.foreign_file import Tensors
from danseg.convert.source import Network, Source
from danseg.convert.structure import Settings, head, resnet
from danseg.engine.checkpoints.torchvision_names import Prefixes

_EPS = 1e-5  # of the norms
_LEAKY = dict(type="LeakyReLU", negative_slope=0.01)
_STEM = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
_HEAD = {
    "head.conva.0": "decode_head.convs.0.conv",
    "head.conva.1": "decode_head.convs.0.bn",
    "head.cca.query_conv": "decode_head.cca.query_conv",
    "head.cca.key_conv": "decode_head.cca.key_conv",
    "head.cca.value_conv": "decode_head.cca.value_conv",
    "head.cca.gamma": "decode_head.cca.gamma.scale",
    "head.convb.0": "decode_head.convs.1.conv",
    "head.convb.1": "decode_head.convs.1.bn",
    "head.bottleneck.0": "decode_head.conv_cat.conv",
    "head.bottleneck.1": "decode_head.conv_cat.bn",
    "head.bottleneck.3": "decode_head.conv_seg",
    "dsn.0": "auxiliary_head.convs.0.conv",
    "dsn.1": "auxiliary_head.convs.0.bn",
    "dsn.3": "auxiliary_head.conv_seg",
}


def _recognises(names: Collection[str]) -> bool:
    return "head.conva.0.weight" in names or "head.cca.query_conv.weight" in names


def _prefixes(names: Collection[str]) -> Prefixes:
    stem = {old: f"backbone.stem.{new}" for old, new in _STEM.items()}
    stages = {f"layer{stage}": f"backbone.layer{stage}" for stage in (1, 2, 3, 4)}
    return stem | stages | _HEAD


def _understand(weights: Tensors, meta: Mapping[str, Any]) -> Network:
    decode_head = head(weights.below("decode_head"))
    auxiliary = weights.below("auxiliary_head")
    shared = dict(align_corners=True, act_cfg=_LEAKY)
    return Network(
        name="ccnet",
        model=dict(
            data_preprocessor=dict(
                mean=[104.00698793, 116.66876762, 122.67891434], std=[1.0, 1.0, 1.0], bgr_to_rgb=False
            ),
            backbone=resnet(weights.below("backbone"))
            | dict(
                type="CeilPooledResNet",
                deep_stem=True,
                strides=(1, 2, 1, 1),
                dilations=(1, 1, 2, 4),
                contract_dilation=False,
            ),
            decode_head=decode_head | shared | dict(recurrence=2, in_index=3),
            auxiliary_head=head(auxiliary) | shared | dict(in_index=2) if auxiliary else None,
        ),
        classes=decode_head["num_classes"],
        data=_data,
        assumed=("model.decode_head.recurrence=2",),
        change=_plain_norms,
        changed="norms of InPlaceABN have become plain ones, with |weight| + eps as their weight"
        + (", and the bias before the auxiliary head's norm a part of its mean" if auxiliary else ""),
    )


def _plain_norms(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with which plain norms compute what InPlaceABN's did."""
    changed = dict(weights)
    for name in weights:
        norm = name.removesuffix(".running_mean")
        if norm != name and f"{norm}.weight" in weights:
            changed[f"{norm}.weight"] = weights[f"{norm}.weight"].abs() + _EPS
    mean = "auxiliary_head.convs.0.bn.running_mean"
    bias = changed.pop("auxiliary_head.convs.0.conv.bias", None)
    if bias is not None and mean in weights and bias.shape == weights[mean].shape:
        changed[mean] = weights[mean] - bias.to(weights[mean])
    elif bias is not None:
        changed["auxiliary_head.convs.0.conv.bias"] = bias
    return changed


def _data(dataset: str) -> Settings:
    """Frames of Cityscapes were tested at their own size, by windows of 769 pixels."""
    return dict(image_scale=(2048, 1024)) if dataset == "cityscapes" else {}


CCNET = Source("CCNet's authors", "head.conva.0.weight", _recognises, _prefixes, _understand)
