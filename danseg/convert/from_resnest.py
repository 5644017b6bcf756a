"""ResNeSt in its authors' layout (https://github.com/zhanghang1989/ResNeSt), which timm keeps, too.

The stem is deep, shortcuts pool, and the attention is ``conv``, ``bn0``, ``fc1``, ``bn1``, ``fc2``. In
dilated stages the first block keeps its pooling, as in the authors' networks.
"""

from collections.abc import Collection, Mapping
from typing import Any

from danseg.convert.backbone_alone import backbone_alone, backbone_prefixes
from danseg.convert.foreign_file import Tensors
from danseg.convert.source import Network, Source

_EXAMPLE = "layer1.0.conv2.fc1.weight"


def _recognises(names: Collection[str]) -> bool:
    return _EXAMPLE in names or "layer1.0.conv2.fc2.weight" in names


def _understand(weights: Tensors, meta: Mapping[str, Any]) -> Network:
    # The "fast" variants pool before the attention, which their tensors do not say, and danseg cannot.
    return backbone_alone(weights, assumed=["pooling after the attention (not a 'fast' variant)"])


RESNEST = Source("ResNeSt's authors", _EXAMPLE, _recognises, backbone_prefixes, _understand)
