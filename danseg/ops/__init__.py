"""Functions on tensors; they import torch alone."""

from danseg.ops.attention import attention
from danseg.ops.concatenation import concatenation
from danseg.ops.criss_cross import criss_cross_attention

__all__ = ["attention", "concatenation", "criss_cross_attention"]
