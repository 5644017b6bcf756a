"""Functions on tensors; they import torch alone.

All are differentiable once, by ``backward()``, ``torch.autograd.grad``, ``torch.func.grad`` and the like, and
``vmap`` maps them. Where a function cannot give another derivative, of a second order or in forward mode, it
raises ``NotImplementedError`` and names a plain form that can; no derivative is silently zero.
"""

from danseg.ops.concatenation_attention import concatenation_attention
from danseg.ops.criss_cross_attention import criss_cross_attention
from danseg.ops.pointwise_spatial_attention import pointwise_spatial_attention
from danseg.ops.softmax_attention import attention
from danseg.ops.upsampled_argmax import upsampled_argmax
from danseg.ops.upsampled_cross_entropy import upsampled_cross_entropy
from danseg.ops.winograd_convolution import winograd_convolution

concatenation = concatenation_attention  # its former name

__all__ = [
    "attention",
    "concatenation",
    "concatenation_attention",
    "criss_cross_attention",
    "pointwise_spatial_attention",
    "upsampled_argmax",
    "upsampled_cross_entropy",
    "winograd_convolution",
]
