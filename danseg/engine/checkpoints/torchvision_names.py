"""ResNet's weights under the names that torchvision, timm and the authors of its variants give them.

All four stages have mmseg's names. What differs is a stem of three convolutions, which mmseg keeps in one
sequence with its norms, and the classifier of ImageNet, which a backbone does not have.

Names are mapped by prefixes, whole words of a dotted name: ``{"bn1": "stem.7"}`` maps ``bn1.weight`` to
``stem.7.weight``; None leaves out what begins so.
"""

from collections.abc import Container, Mapping
from typing import TypeVar

Prefixes = Mapping[str, str | None]
_Value = TypeVar("_Value")

# Of the deep stem of timm's and PyTorch-Encoding's ResNets: its last norm is called as the plain stem's.
_IN_CONV1 = {f"conv1.{index}": f"stem.{index}" for index in (0, 1, 3, 4, 6)}
_PLAIN_STEM = {"conv1": "conv1", "bn1": "bn1"}


def has_deep_stem(names: Container[str]) -> bool:
    """Whether these names, of timm or alike, are of a ResNet with three convolutions in its stem."""
    return any(f"{layer}.weight" in names for layer in _IN_CONV1)


def resnet_prefixes(names: Container[str]) -> dict[str, str | None]:
    """What each prefix of a ResNet's names is in mmseg's ``ResNet``, for weights that have ``names``."""
    stem = _IN_CONV1 | {"bn1": "stem.7"} if has_deep_stem(names) else _PLAIN_STEM
    stages = {f"layer{stage}": f"layer{stage}" for stage in (1, 2, 3, 4)}
    return {**stem, **stages, "fc": None}


def prefix_of(name: str, prefixes: Container[str]) -> str | None:
    """The longest of ``prefixes`` with which ``name`` begins, or which it is; None if there is none."""
    words = name.split(".")
    candidates = (".".join(words[:end]) for end in range(len(words), 0, -1))
    return next((one for one in candidates if one in prefixes), None)


def as_mmseg_resnet(weights: Mapping[str, _Value]) -> dict[str, _Value]:
    """The same for weights of any network: only those of a ResNet are renamed."""
    is_resnet = "layer1.0.conv1.weight" in weights
    return as_backbone(weights) if is_resnet else dict(weights)


def as_backbone(weights: Mapping[str, _Value]) -> dict[str, _Value]:
    """Give a ResNet's weights, under whichever names, those of mmseg's ``ResNet``; drop its classifier.

    Names that are no ResNet's stay as they are, and so do those that are mmseg's already.
    """
    prefixes = resnet_prefixes(weights)
    found: dict[str, _Value] = {}
    for name, value in weights.items():
        old = prefix_of(name, prefixes)
        new = old if old is None else prefixes[old]
        if old is None:
            found[name] = value
        elif new is not None:
            found[new + name.removeprefix(old)] = value
    return found
