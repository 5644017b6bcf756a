"""Say what to change when a run needs more memory than the GPU, or the machine, has."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config

from danseg.errors import StopsAllError

# What libraries beside PyTorch's allocator of a GPU say, which has an exception of its own.
_ALSO = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", "DefaultCPUAllocator")

#: What makes an evaluation need less memory.
EVALUATE_IN_LESS = (
    "evaluate one image at a time (batch_size of val_dataloader and test_dataloader)",
    "by windows (model.test_cfg with mode='slide', crop_size and stride; smaller ones if it does)",
)


def ways_to_train_in_less(config: Config) -> list[str]:
    """What makes the training of a config need less memory, of what it does not do yet."""
    ways = []
    batch = (config.get("train_dataloader") or {}).get("batch_size") or 1
    if batch > 1:
        ways.append(
            f"take fewer images at a time (train_dataloader.batch_size, now {batch}; "
            "optim_wrapper.accumulative_counts keeps those of a step together)"
        )
    if (config.get("optim_wrapper") or {}).get("type") == "OptimWrapper":
        ways.append("compute in 16 bits (--amp)")
    parts = list(config.get("recompute") or ())
    ways.append(f"recompute more of the network (recompute, now {parts}; in a ResNet up to backbone.layer4)")
    return [*ways, "train on smaller crops (crop_size)"]


@contextmanager
def explaining_memory(*remedies: str) -> Iterator[None]:
    """Turn an error about memory during the block into one message; it also decorates functions.

    Args:
        remedies: what to change, most effective first; each completes "To need less, ...".

    Raises:
        StopsAllError: the block needs more memory than there is.
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
        raise StopsAllError(f"{_what(error)}.{less}{_others(error)}") from error


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
