"""EPSANet in its authors' layout (https://github.com/murufeng/EPSANet), as a classifier of ImageNet.

Branches are ``conv_1`` to ``conv_4``, weighed by one ``se`` and concatenated from 4 to 1, as danseg's
``PyramidSplitAttention`` does it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from danseg.convert.backbone_alone import backbone_alone, backbone_prefixes
from danseg.convert.foreign_file import Tensors
from danseg.convert.source import Network, Source

_EXAMPLE = "layer1.0.conv2.conv_1.weight"


def _recognises(names: Collection[str]) -> bool:
    return _EXAMPLE in names or "layer1.0.conv2.se.fc1.weight" in names


def _understand(weights: Tensors, meta: Mapping[str, Any]) -> Network:
    return backbone_alone(weights, "epsanet")


EPSANET = Source("EPSANet's authors", _EXAMPLE, _recognises, backbone_prefixes, _understand)
