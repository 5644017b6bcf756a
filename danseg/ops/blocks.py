"""How large the blocks are that the operators keep of an attention map."""

from functools import cache

import torch

# This share of what an operator reads and writes: blocks never weigh more than what is there anyway.
_SHARE = 1 / 6
# Large enough for full-speed matrix products, small enough to stay near the caches.
_LEAST_BYTES = 4 * 2**20
# glibc's malloc can keep freed blocks at hand up to 32 MiB. Larger ones come from the system as zeroed pages,
# each time anew, which takes as long as a third of the products.
_MOST_BYTES = 24 * 2**20


def block_bytes(operand_bytes: int, alive: int = 1) -> int:
    """The memory of one block of energies, in bytes; benchmarks/attention.py shows the effect.

    Args:
        operand_bytes: of queries, keys, values and output together, of one entry of the batch.
        alive: blocks of which each takes as much and that are there at one time.
    """
    return max(_LEAST_BYTES, min(_MOST_BYTES // alive, int(operand_bytes * _SHARE)))


@cache
def keep_freed_blocks() -> None:
    """Let glibc's malloc hold on to freed blocks for the next one to use, from now on.

    It learns how much to keep from the largest block that it has given back to the system so far: twice
    that, where a block and what a product needs beside it take a little more. So it is shown a larger one,
    whose memory is never touched.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
