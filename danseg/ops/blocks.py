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


def block_bytes(operand_bytes: int, alive: int = 1) -> int:
    """Memory budget of one block of energies, in bytes; benchmarks/attention.py shows its effect.

    Args:
        operand_bytes: bytes of the queries, keys, values and output of one entry of the batch, together.
        alive: number of blocks that are alive at the same time.
    """
    return max(_LEAST_BYTES, min(_MOST_BYTES // alive, int(operand_bytes * _SHARE)))


@cache
def keep_freed_blocks() -> None:
    """Make glibc's malloc keep freed blocks for reuse, for the rest of the process.

    malloc keeps up to twice the size of the largest block that it has returned to the system so far. A block
    and the workspace of its product together take a little more than that. So this function allocates and
    frees one larger block, whose memory is never touched.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
