"""PSANet in its authors' layout (https://github.com/hszhao/semseg).

The stem has three convolutions of 64, 64 and 128 channels, the projection of the attention has no padding,
and all resizing aligns corners. Their network takes images with sides of 8n + 1 pixels alone; the mask's size
is that of the windows it was trained with.
"""

from collections.abc import Collection, Mapping
from math import ceil
from typing import Any

from danseg.convert.foreign_file import Tensors
from danseg.convert.source import IMAGENET, Network, Source
from danseg.convert.structure import Settings, head, resnet
from danseg.engine.checkpoints.torchvision_names import Prefixes

_HEAD = {
    **{f"psa.reduce{p}.0": f"decode_head.reduce{p}.conv" for p in ("", "_p")},
    **{f"psa.reduce{p}.1": f"decode_head.reduce{p}.bn" for p in ("", "_p")},
    **{f"psa.attention{p}.0": f"decode_head.attention{p}.0.conv" for p in ("", "_p")},
    **{f"psa.attention{p}.1": f"decode_head.attention{p}.0.bn" for p in ("", "_p")},
    **{f"psa.attention{p}.3": f"decode_head.attention{p}.1" for p in ("", "_p")},
    "psa.proj.0": "decode_head.proj.conv",
    "psa.proj.1": "decode_head.proj.bn",
    "cls.0": "decode_head.bottleneck.conv",
    "cls.1": "decode_head.bottleneck.bn",
    "cls.4": "decode_head.conv_seg",
    "aux.0": "auxiliary_head.convs.0.conv",
    "aux.1": "auxiliary_head.convs.0.bn",
    "aux.4": "auxiliary_head.conv_seg",
}
_SHRINK = 2


def _recognises(names: Collection[str]) -> bool:
    return "layer0.0.weight" in names or "psa.reduce.0.weight" in names


def _prefixes(names: Collection[str]) -> Prefixes:
    stem = {f"layer0.{index}": f"backbone.stem.{index}" for index in (0, 1, 3, 4, 6, 7)}
    stages = {f"layer{stage}": f"backbone.layer{stage}" for stage in (1, 2, 3, 4)}
    return stem | stages | _HEAD


def _understand(weights: Tensors, meta: Mapping[str, Any]) -> Network:
    decode_head = head(weights.below("decode_head"))
    auxiliary = weights.below("auxiliary_head")
    attention = dict(
        compact=False,
        shrink_factor=_SHRINK,
        normalization_factor=1.0,
        psa_softmax=True,
        proj_padding=0,
        in_index=3,
        align_corners=True,
    )
    return Network(
        name="psanet",
        model=dict(
            data_preprocessor=IMAGENET,
            backbone=resnet(weights.below("backbone"))
            | dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=False),
            decode_head=attention | decode_head,
            auxiliary_head=head(auxiliary) | dict(in_index=2, align_corners=True) if auxiliary else None,
        ),
        classes=decode_head["num_classes"],
        data=lambda dataset: _data(dataset, decode_head.get("mask_size")),
        assumed=tuple(
            f"model.decode_head.{name}={attention[name]}"
            for name in ("shrink_factor", "compact", "normalization_factor", "psa_softmax")
        ),
    )


def _data(dataset: str, mask_size: tuple[int, int] | None) -> Settings:
    """Images were tested by windows, of whose shrunk grid of n positions a mask has 2n - 1."""
    scale = {"cityscapes": (2048, 1024), "ade20k": (512, 512), "voc2012": (512, 512)}.get(dataset)
    if scale is None or mask_size is None:
        return {}
    crop = tuple((side - 1) // 2 * _SHRINK * 8 + 1 for side in mask_size)
    stride = tuple(ceil(side * 2 / 3) for side in crop)
    return dict(image_scale=scale, crop_size=crop, test_cfg=dict(mode="slide", crop_size=crop, stride=stride))


SEMSEG = Source("PSANet's authors (semseg)", "layer0.0.weight", _recognises, _prefixes, _understand)
