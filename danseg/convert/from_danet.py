"""DANet in its authors' layout, that of PyTorch-Encoding (https://github.com/junfu1115/DANet).

Their position and channel attention are mmseg's and danseg's to the bit. The backbone has a stem of one 7x7
convolution, or in later versions of three, the last stage has dilations of 4, 8 and 16, logits are resized
with their corners aligned, and there is no auxiliary head.
"""

from collections.abc import Collection, Mapping
from typing import Any

from danseg.convert.foreign_file import Tensors
from danseg.convert.source import IMAGENET, Network, Source
from danseg.convert.structure import Settings, blocks, head, resnet
from danseg.engine.checkpoints.torchvision_names import Prefixes, resnet_prefixes

_HEAD = {
    "conv5a.0": "pam_in_conv.conv",
    "conv5a.1": "pam_in_conv.bn",
    "conv5c.0": "cam_in_conv.conv",
    "conv5c.1": "cam_in_conv.bn",
    "sa.query_conv": "pam.query_project",
    "sa.key_conv": "pam.key_project",
    "sa.value_conv": "pam.value_project",
    "sa.gamma": "pam.gamma.scale",
    "sc.gamma": "cam.gamma.scale",
    "conv51.0": "pam_out_conv.conv",
    "conv51.1": "pam_out_conv.bn",
    "conv52.0": "cam_out_conv.conv",
    "conv52.1": "cam_out_conv.bn",
    "conv6.1": "pam_conv_seg",
    "conv7.1": "cam_conv_seg",
    "conv8.1": "conv_seg",
}
_GRID = (4, 8, 16)


def _recognises(names: Collection[str]) -> bool:
    return "head.conv5a.0.weight" in names or "head.conv8.1.weight" in names


def _prefixes(names: Collection[str]) -> Prefixes:
    found = resnet_prefixes({name.removeprefix("pretrained.") for name in names})
    backbone = {f"pretrained.{old}": new and f"backbone.{new}" for old, new in found.items()}
    return backbone | {f"head.{old}": f"decode_head.{new}" for old, new in _HEAD.items()}


def _understand(weights: Tensors, meta: Mapping[str, Any]) -> Network:
    backbone = weights.below("backbone")
    last = blocks(backbone)[-1]
    grid = tuple(_GRID[index % len(_GRID)] for index in range(last))
    decode_head = head(weights.below("decode_head"))
    return Network(
        name="danet",
        model=dict(
            data_preprocessor=IMAGENET,
            backbone=resnet(backbone)
            | dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True, multi_grid=grid),
            decode_head=decode_head | dict(in_index=3, align_corners=True),
            auxiliary_head=None,
        ),
        classes=decode_head["num_classes"],
        data=_data,
        assumed=(f"model.backbone.multi_grid={grid}",),
    )


def _data(dataset: str) -> Settings:
    """Frames of Cityscapes were tested at their own size, by windows of 768 pixels."""
    return dict(image_scale=(2048, 1024), crop_size=(768, 768)) if dataset == "cityscapes" else {}


DANET = Source("DANet's authors", "head.conv5a.0.weight", _recognises, _prefixes, _understand)
