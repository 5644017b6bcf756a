"""Convolutions in float32 that are rounded to TF32 on GPUs which have it: PyTorch's default."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def convolves_in_tf32() -> bool:
    """Whether convolutions round their float32 factors to 10 bits on GPUs that can."""
    switch, name, _ = _switch()
    return getattr(switch, name) in (True, "tf32") and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Let convolutions compute in all of float32 during the block, so that results can be compared."""
    switch, name, exact = _switch()
    before = getattr(switch, name)
    setattr(switch, name, exact)
    try:
        yield
    finally:
        setattr(switch, name, before)


def _switch() -> tuple[Any, str, Any]:
    """The object and the name of PyTorch's switch, and the value without TF32."""
    # PyTorch 2.9 has a second switch. Reading the first may raise once somebody has set the second.
    convolutions = getattr(torch.backends.cudnn, "conv", None)
    if convolutions is None:
        return torch.backends.cudnn, "allow_tf32", False
    return convolutions, "fp32_precision", "ieee"
