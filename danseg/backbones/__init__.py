"""Backbones, registered in mmseg's ``MODELS``, and the convolutions of their bottlenecks."""

from danseg.errors import require_mmseg

require_mmseg("danseg.backbones")

from danseg.backbones.ceil_pooled_resnet import CeilPooledResNet  # noqa: E402
from danseg.backbones.variant_resnet import VariantResNet  # noqa: E402

DilatedResNet = VariantResNet  # its former name

__all__ = ["CeilPooledResNet", "DilatedResNet", "VariantResNet"]
