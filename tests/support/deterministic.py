"""PyTorch's switch for results that repeat to the bit, on for a block."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic(refused: str | None = None) -> Iterator[None]:
    """An operator that has no deterministic form raises a RuntimeError with its name during the block.

    Args:
        refused: the operator that may do so, as a pattern; the block then ends there without an error. Which
            operators have a deterministic form depends on PyTorch's version: the block may also run whole.
    """
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if refused is None or not re.search(f"{refused}.* does not have a deterministic", str(error)):
            raise
    finally:
        torch.use_deterministic_algorithms(False)
