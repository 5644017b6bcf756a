"""timm's ResNets: with torchvision's stem (``resnet50``), a deep one (``resnet50c``), or as ResNet-D
(``resnet50d``), whose shortcuts pool.

Where dilation takes the place of a stride, timm's ResNet-D pools with a stride of 1 and mmseg's does not
pool. The weights were trained without dilation, where both are one.
"""

from collections.abc import Mapping
from typing import Any

from danseg.convert.backbone_alone import backbone_alone, backbone_prefixes, is_plain_resnet
from danseg.convert.foreign_file import Tensors
from danseg.convert.source import Network, Source


def _understand(weights: Tensors, meta: Mapping[str, Any]) -> Network:
    return backbone_alone(weights)


TIMM = Source("timm", "layer1.0.conv1.weight", is_plain_resnet, backbone_prefixes, _understand)
