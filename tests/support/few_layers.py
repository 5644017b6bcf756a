"""A network of a few layers in the form of a config: what is exported, loaded and run in milliseconds."""

import copy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS
from torch import Tensor, nn

from danseg import apis
from danseg.segmentors.labels import head_logits

CLASSES = 5


@MODELS.register_module(force=True)
class FewLayers(nn.Module):
    """A backbone of stride 4: two maps of 12 channels."""

    def __init__(self, in_channels: int = 3, init_cfg: Any = None, pretrained: Any = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 12, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.last = nn.Conv2d(12, 12, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.norm(self.stem(x)).relu()
        return [self.last(x).tanh(), self.last(x).sigmoid()]


def few_layers(head: dict | list | None = None, channels: int = 3, **model: Any) -> Config:
    """The config of such a network.

    Args:
        head: its type and own arguments; a list for the stages of a cascade.
        channels: of the images.
        model: further entries of ``model``; ``data_preprocessor`` is merged into its own.
    """
    common = dict(in_channels=12, in_index=1, channels=8, num_classes=CLASSES, norm_cfg=dict(type="BN"))
    heads = [
        {**common, **one} for one in (head if isinstance(head, list) else [head or dict(type="FCNHead")])
    ]
    values = (
        dict(mean=[123.0, 116.0, 104.0], std=[58.0, 57.0, 56.0], bgr_to_rgb=True) if channels == 3 else {}
    )
    preprocessor = dict(type="SegDataPreProcessor", **values) | model.pop("data_preprocessor", {})
    classes = heads[-1]["num_classes"]
    pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
    dataset = dict(
        type="BaseSegDataset",
        metainfo=dict(classes=[f"class {i}" for i in range(classes)]),
        pipeline=pipeline,
    )
    fields = dict(
        type="LeanEncoderDecoder",
        data_preprocessor=preprocessor,
        backbone=dict(type="FewLayers", in_channels=channels),
        decode_head=heads if isinstance(head, list) else heads[0],
        train_cfg=dict(),
        test_cfg=dict(mode="whole"),
    )
    return Config(
        dict(
            default_scope="mmseg",
            crop_size=(48, 72),
            model=fields | model,
            test_dataloader=dict(dataset=dataset),
        )
    )


def few_layers_model(config: Config) -> BaseSegmentor:
    """The network with random weights that tell its classes apart, and statistics that are no new ones."""
    torch.manual_seed(0)
    model = apis.load_model(copy.deepcopy(config), None, "cpu")
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
        elif name.endswith(("gamma.scale", "gamma")):
            value.fill_(0.8)
        elif value.dim() > 1:
            value.normal_(std=0.3)
    with torch.no_grad():  # so that each class is somewhere the best
        logits = head_logits(model, torch.randn(2, config.model.backbone.in_channels, 64, 64))
    heads = model.decode_head
    (heads[-1] if isinstance(heads, nn.ModuleList) else heads).conv_seg.bias.data -= logits.mean((0, 2, 3))
    return model


def few_layers_files(folder: Path, config: Config) -> tuple[Path, Path]:
    """The network as a config file and a checkpoint."""
    names = folder / "few_layers.py", folder / "few_layers.pth"
    names[0].write_text(config.pretty_text)
    torch.save(dict(state_dict=few_layers_model(config).state_dict(), meta={}), names[1])
    return names
