"""Functions on tensors; they import torch alone."""

from danseg.ops.attention import attention
from danseg.ops.concatenation import concatenation
from danseg.ops.criss_cross import criss_cross_attention
from danseg.ops.pointwise_spatial import pointwise_spatial_attention
from danseg.ops.upsampled_argmax import upsampled_argmax
from danseg.ops.upsampled_cross_entropy import upsampled_cross_entropy

__all__ = [
    "attention",
    "concatenation",
    "criss_cross_attention",
    "pointwise_spatial_attention",
    "upsampled_argmax",
    "upsampled_cross_entropy",
]
