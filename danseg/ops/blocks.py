"""How large the blocks are that the operators keep of an attention map."""

# This share of what an operator reads and writes: a block never weighs more than what is there anyway.
_SHARE = 1 / 8
# Large enough for full-speed matrix products, small enough to stay near the caches.
_LEAST_BYTES = 4 * 2**20


def block_bytes(operand_bytes: int) -> int:
    """The memory of one block of energies, in bytes; benchmarks/attention.py shows the effect.

    Args:
        operand_bytes: of queries, keys, values and output together, of one entry of the batch.
    """
    return max(_LEAST_BYTES, int(operand_bytes * _SHARE))
