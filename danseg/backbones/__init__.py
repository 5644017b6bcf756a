"""Backbones, registered in mmseg's ``MODELS``, and the convolutions that stand in their bottlenecks."""

from danseg.errors import require_mmseg

require_mmseg("danseg.backbones")

from danseg.backbones.dilated_resnet import DilatedResNet  # noqa: E402

__all__ = ["DilatedResNet"]
