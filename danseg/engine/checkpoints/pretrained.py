"""Check pretrained weights before a network starts from them: whole, finite, and for this network.

Of a ResNet's weights, under mmseg's, torchvision's or timm's names, all have to have a place, but for the
classifier and for stages that the backbone does not have. Of its own the backbone may have more: plugins, and
a first convolution for pictures of other channels. Of other networks' weights some have to fit.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from mmseg.models.backbones import ResNet
from torch import nn

from danseg.engine.checkpoints.checkpoint import check_values, describe_mismatch, read_checkpoint, weights_of
from danseg.engine.checkpoints.torchvision_names import as_mmseg_resnet
from danseg.errors import UserError

#: What to do about pretrained weights that are of no use, for the end of a message.
INSTEAD = (
    "Name a file for this network (--cfg-options model.pretrained=FILE), start from all weights of a "
    "segmentor (load_from=FILE), or train without (model.pretrained=None)"
)


def check_pretrained(network: nn.Module) -> None:
    """Check the files from which parts of ``network`` will take their first weights; fetch them if need be.

    mmengine loads what fits, and starts from random weights without a word where nothing does.

    Raises:
        UserError: a file cannot be read, nothing in it fits, or it holds weights that no network can use.
    """
    for part in network.modules():
        # A class with init_weights of its own may rename what it reads, as those of transformers do.
        if isinstance(part, BaseModule) and type(part).init_weights is BaseModule.init_weights:
            for init in _pretrained_inits(part.init_cfg):
                _check(part, str(init["checkpoint"]), init.get("prefix"))


def _pretrained_inits(init_cfg: Any) -> Iterator[Mapping[str, Any]]:
    for init in init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]:
        if isinstance(init, Mapping) and init.get("type") == "Pretrained" and init.get("checkpoint"):
            yield init


def _check(part: nn.Module, source: str, prefix: str | None) -> None:
    try:
        weights = weights_of(read_checkpoint(source))
    except UserError as error:
        raise UserError(f"{error}\n{INSTEAD}") from error
    if prefix:
        start = prefix.rstrip(".") + "."
        weights = {n.removeprefix(start): value for n, value in weights.items() if n.startswith(start)}
    else:
        weights = as_mmseg_resnet(weights)
    check_values(part, weights, source)
    own = part.state_dict()
    if not any(name in own and own[name].shape == value.shape for name, value in weights.items()):
        raise UserError(
            f"no parameter of the pretrained weights {source} fits {type(part).__name__}:\n"
            f"{describe_mismatch(part, weights)}\n{INSTEAD}"
        )
    problem = describe_mismatch(part, _to_place(part, weights)) if isinstance(part, ResNet) else ""
    if problem:
        raise UserError(
            f"the pretrained weights {source} are not those of this {type(part).__name__}"
            f"{_stems(part, weights)}:\n{problem}\n{INSTEAD}"
        )


def _to_place(backbone: ResNet, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights that have to have a place in a backbone, with its own of what they need not have."""
    own = backbone.state_dict()
    not_needed = {"layer1", "layer2", "layer3", "layer4"} - {*backbone.res_layers}
    expected = {name: value for name, value in weights.items() if name.partition(".")[0] not in not_needed}
    expected.pop("conv1.bias", None)  # detectron's ResNets have one, which mmseg leaves out
    plugins = tuple(_plugins(backbone))
    expected |= {name: own[name] for name in own.keys() - weights.keys() if name.startswith(plugins)}
    for first in ("conv1.weight", "stem.0.weight"):
        if first in own and first in weights and own[first].shape[1] != weights[first].shape[1]:
            expected[first] = own[first]
    return expected


def _plugins(backbone: ResNet) -> Iterator[str]:
    """The prefixes of the parameters of a backbone's plugins."""
    for place, block in backbone.named_modules():
        for position in ("after_conv1", "after_conv2", "after_conv3"):
            for name in getattr(block, f"{position}_plugin_names", ()):
                yield f"{place}.{name}."


def _stems(backbone: ResNet, weights: Mapping[str, torch.Tensor]) -> str:
    """What to say if the one has a stem of three convolutions and the other has one."""
    deep = {True: "three convolutions (ResNetV1c, ResNetV1d)", False: "one convolution (ResNet)"}
    theirs, ours = "stem.0.weight" in weights, bool(backbone.deep_stem)
    return "" if theirs == ours else f", whose stem has {deep[ours]}, and theirs {deep[theirs]}"
