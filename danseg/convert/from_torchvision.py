"""torchvision's ResNets, as classifiers of ImageNet, and its FCN."""

from collections.abc import Collection, Mapping
from typing import Any

from danseg.convert.backbone_alone import backbone_alone, is_plain_resnet
from danseg.convert.foreign_file import Tensors
from danseg.convert.source import IMAGENET, Network, Source
from danseg.convert.structure import head, resnet
from danseg.engine.checkpoints.torchvision_names import Prefixes, has_deep_stem, resnet_prefixes

_FCN = ("backbone.conv1.weight", "classifier.4.weight")
_HEAD = {"0": "convs.0.conv", "1": "convs.0.bn", "4": "conv_seg"}


def _is_fcn(names: Collection[str]) -> bool:
    return any(name in names for name in _FCN)


def _recognises(names: Collection[str]) -> bool:
    return _is_fcn(names) or (is_plain_resnet(names) and not has_deep_stem(names))


def _prefixes(names: Collection[str]) -> Prefixes:
    inner = {old: new and f"backbone.{new}" for old, new in resnet_prefixes(names).items()}
    if not _is_fcn(names):
        return inner
    heads = {"classifier": "decode_head", "aux_classifier": "auxiliary_head"}
    return {f"backbone.{old}": new for old, new in inner.items()} | {
        f"{theirs}.{old}": f"{ours}.{new}" for theirs, ours in heads.items() for old, new in _HEAD.items()
    }


def _understand(weights: Tensors, meta: Mapping[str, Any]) -> Network:
    if "decode_head.conv_seg.weight" not in weights:
        return backbone_alone(weights)
    auxiliary = weights.below("auxiliary_head")
    decode_head = head(weights.below("decode_head"))
    return Network(
        name="fcn",
        model=dict(
            data_preprocessor=IMAGENET,
            backbone=resnet(weights.below("backbone"))
            | dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True),
            decode_head=decode_head | dict(in_index=3, align_corners=False),
            auxiliary_head=head(auxiliary) | dict(in_index=2, align_corners=False) if auxiliary else None,
        ),
        classes=decode_head["num_classes"],
        # Images were tested with a short side of 520 pixels.
        data=lambda dataset: dict(image_scale=(2048, 520)) if dataset == "voc2012" else {},
    )


TORCHVISION = Source("torchvision", "layer1.0.conv1.weight", _recognises, _prefixes, _understand)
