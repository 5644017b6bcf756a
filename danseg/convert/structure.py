"""What the shapes of a network's tensors say about it, in the words of a config.

The names are mmseg's: a file's own ones have been mapped before (``danseg/convert/from_*.py``).
"""

import inspect
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from danseg.backbones.variant_resnet import CONV2
from danseg.convert.foreign_file import Tensors
from danseg.errors import UserError

Settings = dict[str, Any]

# Depth of a ResNet, by the numbers of its blocks and whether they are bottlenecks.
_DEPTHS = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
    ((3, 24, 36, 3), True): 200,
    ((3, 30, 48, 8), True): 269,
}


def width(weights: Tensors, name: str) -> int:
    """How many channels a convolution or a norm gives out."""
    return weights[f"{name}.weight"].shape[0]


def blocks(weights: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The number of blocks of each of a ResNet's stages."""
    numbers = [
        {int(index) for _, index, *_ in (n.split(".") for n in weights if n.startswith(f"layer{stage}."))}
        for stage in (1, 2, 3, 4)
    ]
    return tuple(max(found, default=-1) + 1 for found in numbers)


def resnet(weights: Tensors) -> Settings:
    """``backbone`` of a config for a ResNet with the tensors ``weights``, of names without ``backbone.``.

    Raises:
        UserError: no ResNet of danseg or mmseg has so many blocks.
        Absent: a tensor is missing from which something follows.
    """
    bottleneck = any(name.endswith(".conv3.weight") for name in weights)
    known = blocks(weights), bottleneck
    if known not in _DEPTHS:
        kind = "bottlenecks" if bottleneck else "blocks of two convolutions"
        raise UserError(
            f"its backbone has {', '.join(map(str, known[0]))} {kind} in its stages; ResNets that can be "
            "built have "
            + "; ".join(", ".join(map(str, one)) for one in dict.fromkeys(one for one, _ in _DEPTHS))
        )
    deep = any(name.startswith("stem.") for name in weights)
    first = "stem.0" if deep else "conv1"
    pooled = "layer2.0.downsample.1.weight" in weights and weights["layer2.0.downsample.1.weight"].dim() == 4
    settings: Settings = dict(
        type="ResNetV1d" if deep and pooled else "ResNetV1c" if deep else "ResNet",
        depth=_DEPTHS[known],
        in_channels=weights[f"{first}.weight"].shape[1],
        stem_channels=width(weights, "stem.6" if deep else "conv1"),
        base_channels=width(weights, "layer1.0.conv3") // 4
        if bottleneck
        else width(weights, "layer1.0.conv1"),
        style="pytorch",
    )
    if pooled and not deep:
        settings["avg_down"] = True
    conv2 = _conv2(weights)
    if conv2:
        kind, arguments = conv2.pop("type"), conv2
        usual = defaults(CONV2[kind].module)
        arguments = {name: value for name, value in arguments.items() if value != usual[name]}
        settings.update(
            type="VariantResNet",
            conv2=dict(type=kind, **arguments) if arguments else kind,
            deep_stem=deep,
            avg_down=pooled,
        )
        base_width = width(weights, "layer1.0.conv1") * 64 // settings["base_channels"]
        if base_width != CONV2[kind].base_width:
            settings["base_width"] = base_width
    return settings


def defaults(kind: type) -> Settings:
    """The arguments that a class and its parents have a default for."""
    found: Settings = {}
    for one in reversed(kind.__mro__):
        if "__init__" in vars(one):
            parameters = inspect.signature(vars(one)["__init__"]).parameters.values()
            found.update({p.name: p.default for p in parameters if p.default is not p.empty})
    return found


def _conv2(weights: Tensors) -> Settings | None:
    """``conv2`` of a ``VariantResNet``, where it is not a plain convolution."""
    block = weights.below("layer1.0.conv2")
    channels = width(weights, "layer1.0.conv1")
    if any(name.startswith("conv_1.") for name in block):
        convs = [block[f"conv_{branch}.weight"] for branch in (1, 2, 3, 4)]
        # The groups of the first stage may be more than its narrow branches can be divided into: the last
        # stage's are the network's.
        last = weights.below("layer4.0.conv2")
        wide = width(weights, "layer4.0.conv1")
        return dict(
            type="pyramid_split",
            kernel_sizes=tuple(conv.shape[2] for conv in convs),
            groups=tuple(wide // last[f"conv_{branch}.weight"].shape[1] for branch in (1, 2, 3, 4)),
            reduction=wide // 4 // width(last, "se.fc1"),
        )
    if any(name.startswith("fc1.") for name in block):
        splits = width(block, "conv") // channels
        return dict(
            type="split_attention_pooled",
            radix=splits,
            groups=channels // (block["conv.weight"].shape[1] * splits),
        )
    return None


def feature_channels(backbone: Settings, stage: int) -> int:
    """Channels of the map that a stage (0 to 3) of a ResNet gives out."""
    expansion = 1 if backbone["depth"] < 50 else 4
    return backbone["base_channels"] * 2**stage * expansion


def head(weights: Tensors) -> Settings:
    """``decode_head`` or ``auxiliary_head`` of a config for the tensors of one of mmseg's heads.

    Raises:
        UserError: it is none of the heads that danseg has.
        Absent: a tensor is missing from which something follows.
    """
    classifier = weights["conv_seg.weight"]
    common = dict(channels=classifier.shape[1], num_classes=classifier.shape[0])
    for mark, own in _HEADS.items():
        if any(name.startswith(f"{mark}.") for name in weights):
            return common | own(weights)
    raise UserError(f"its head is none that danseg has; its first tensors are {', '.join(list(weights)[:4])}")


#: Arguments of a head that have no usual value, and that not all tensors say.
UNSAID = {"PSANetHead": ("mask_size", "psa_type")}


def _danet(weights: Tensors) -> Settings:
    return dict(
        type="DANetHead",
        in_channels=weights["pam_in_conv.conv.weight"].shape[1],
        pam_channels=width(weights, "pam.query_project"),
        with_pam=True,
        with_cam=True,
    )


def _psanet(weights: Tensors) -> Settings:
    cells = width(weights, "attention.1")
    side = isqrt(cells)
    settings: Settings = dict(type="PSANetHead", in_channels=weights["reduce.conv.weight"].shape[1])
    if side * side == cells:
        settings["mask_size"] = (side, side)
    if any(name.startswith("attention_p.") for name in weights):
        settings["psa_type"] = "bi-direction"
    return settings


def _isanet(weights: Tensors) -> Settings:
    return dict(
        type="ISANetHead",
        in_channels=weights["in_conv.conv.weight"].shape[1],
        isa_channels=width(weights, "global_relation.query_project.0.conv"),
    )


def fcn(weights: Tensors) -> Settings:
    """A head of convolutions and a classifier."""
    return dict(type="FullyConvolutionalHead", **_convs(weights)) | dict(
        num_convs=1 + max(int(name.split(".")[1]) for name in weights if name.startswith("convs."))
    )


def _convs(weights: Tensors) -> Settings:
    return dict(
        in_channels=weights["convs.0.conv.weight"].shape[1],
        kernel_size=weights["convs.0.conv.weight"].shape[2],
        concat_input=any(name.startswith("conv_cat.") for name in weights),
    )


def _ccnet(weights: Tensors) -> Settings:
    return dict(type="CCNetHead", **_convs(weights))


def _gcnet(weights: Tensors) -> Settings:
    fusions = [one for one in ("channel_add", "channel_mul") if f"gc_block.{one}_conv.0.weight" in weights]
    narrow = width(weights, f"gc_block.{(fusions or ['channel_add'])[0]}_conv.0")
    return dict(
        type="GCNetHead",
        **_convs(weights),
        ratio=narrow / weights["conv_seg.weight"].shape[1],
        pooling_type="att" if any(name.startswith("gc_block.conv_mask.") for name in weights) else "avg",
        fusion_types=tuple(fusions),
    )


def _non_local(kind: str, block: str) -> Any:
    def settings(weights: Tensors) -> Settings:
        inner = weights.below(block)
        found = dict(
            type=kind,
            **_convs(weights),
            reduction=weights["conv_seg.weight"].shape[1] // width(inner, "g.conv"),
        )
        if "concat_project.conv.weight" in inner:
            found["mode"] = "concatenation"
        elif not any(name.startswith(("theta.", "phi.")) for name in inner):
            found["mode"] = "gaussian"
        return found

    return settings


# What the names of each head have at their beginning that no other's have; the plain one comes last.
_HEADS = {
    "pam_in_conv": _danet,
    "cca": _ccnet,
    "reduce": _psanet,
    "global_relation": _isanet,
    "gc_block": _gcnet,
    "dnl_block": _non_local("DNLNetHead", "dnl_block"),
    "nl_block": _non_local("NonLocalHead", "nl_block"),
    "convs": fcn,
}
