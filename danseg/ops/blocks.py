"""Block sizes: how much of an attention map the operators hold in memory at a time."""

from functools import cache

import torch

# A block's share of the memory that an operator reads and writes: blocks stay small beside the operands.
_SHARE = 1 / 6
# Large enough for matrix products at full speed, small enough to stay near the caches.
_LEAST_BYTES = 4 * 2**20
# glibc's malloc can keep freed blocks of up to 32 MiB for reuse. Larger ones come from the system as zeroed
# pages every time, which takes a third of the time of the products.
_MOST_BYTES = 24 * 2**20
# Work that fits in this much is done at once, and then stays in a processor's caches.
_CACHED_BYTES = 2 * 2**20
# On a GPU each block costs a few launches, and must occupy the whole device. It may take as much as the
# operands.
_SHARE_GPU = 1
_LEAST_BYTES_GPU = 64 * 2**20
_MOST_BYTES_GPU = 256 * 2**20


def block_bytes(operand_bytes: int, device: torch.device, alive: int = 1) -> int:
    """Memory budget of one block of energies, in bytes; benchmarks/attention.py shows its effect.

    Args:
        operand_bytes: bytes of the queries, keys, values and output of one entry of the batch, together.
        device: where they are.
        alive: number of blocks that are alive at the same time.
    """
    cpu = device.type == "cpu"
    share = _SHARE if cpu else _SHARE_GPU
    least, most = (_LEAST_BYTES, _MOST_BYTES) if cpu else (_LEAST_BYTES_GPU, _MOST_BYTES_GPU)
    return max(least, min(most // alive, int(operand_bytes * share)))


def cached_bytes(device: torch.device) -> int:
    """How much small pieces of work that share one call may take together, in bytes."""
    return _CACHED_BYTES if device.type == "cpu" else _LEAST_BYTES_GPU


@cache
def keep_freed_blocks() -> None:
    """Make glibc's malloc keep freed blocks for reuse, for the rest of the process.

    malloc keeps up to twice the size of the largest block that it has returned to the system so far. A block
    and the workspace of its product together take a little more than that. So this function allocates and
    frees one larger block, whose memory is never touched.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
