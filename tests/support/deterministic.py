"""PyTorch's switch for results that repeat to the bit, on for a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic() -> Iterator[None]:
    """An operator that has no deterministic form raises a RuntimeError with its name during the block."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
