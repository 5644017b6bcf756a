"""Functions on tensors; they import torch alone."""

from danseg.ops.attention import attention

__all__ = ["attention"]
