"""Say what to change when a run needs more memory than the GPU, or the machine, has."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from danseg.errors import UserError

# What libraries beside PyTorch's allocator of a GPU say, which has an exception of its own.
_ALSO = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", "DefaultCPUAllocator")


@contextmanager
def explaining_memory(*remedies: str) -> Iterator[None]:
    """Turn an error about memory during the block into one message; it also decorates functions.

    Args:
        remedies: what to change, most effective first; each completes "To need less, ...".

    Raises:
        UserError: the block needs more memory than there is.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        told = str(error)
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and not any(
            text in told for text in _ALSO
        ):
            raise
        less = f" To need less, {', or '.join(remedies)}." if remedies else ""
        raise UserError(f"{_what(error)}.{less}{_others(error)}") from error


def _on_the_cpu(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)


def _what(error: BaseException) -> str:
    if _on_the_cpu(error):
        return "this run needs more memory than the machine has free"
    asked = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
    room = re.search(r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", str(error))
    numbers = f": {asked[1]} more" if asked else ""
    numbers += f", where {room[2]} of {room[1]} are free" if room else ""
    return f"this run needs more memory than the GPU has{numbers}"


def _others(error: BaseException) -> str:
    return "" if _on_the_cpu(error) else " What else uses the GPU is listed by nvidia-smi."
