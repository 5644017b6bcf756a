"""What the sources of backbones share: classifiers of ImageNet whose names are ResNet's."""

from collections.abc import Collection, Iterable
from typing import Any

from danseg.convert.foreign_file import Tensors
from danseg.convert.source import IMAGENET, Network
from danseg.convert.structure import feature_channels, resnet
from danseg.engine.checkpoints.torchvision_names import Prefixes, resnet_prefixes


def is_plain_resnet(names: Collection[str]) -> bool:
    """Whether names are of a ResNet that has plain convolutions in its blocks."""
    second = [name for name in names if name.startswith("layer1.0.conv2.")]
    return any(name.startswith("layer1.0.") for name in names) and set(second) <= {"layer1.0.conv2.weight"}


def backbone_prefixes(names: Collection[str]) -> Prefixes:
    return {old: new and f"backbone.{new}" for old, new in resnet_prefixes(names).items()}


def backbone_alone(weights: Tensors, network: str = "danet", assumed: Iterable[str] = ()) -> Network:
    """A network on this backbone, dilated as danseg's recipes do it; its heads start from random weights."""
    backbone: dict[str, Any] = resnet(weights.below("backbone")) | dict(
        strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True
    )
    return Network(
        name=network,
        model=dict(
            data_preprocessor=IMAGENET,
            backbone=backbone,
            decode_head=dict(in_channels=feature_channels(backbone, 3)),
            auxiliary_head=dict(in_channels=feature_channels(backbone, 2)),
        ),
        assumed=tuple(assumed),
    )
