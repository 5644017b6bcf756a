"""Functions on tensors; they import torch alone."""

from danseg.ops.attention import attention
from danseg.ops.concatenation import concatenation

__all__ = ["attention", "concatenation"]
