"""Deal pieces of work out to the processes of a run, the next one to whoever asks."""

import os
from collections.abc import Iterator

from mmengine.dist import get_dist_info
from torch.distributed import PrefixStore, TCPStore


def dealt(count: int, what: str) -> Iterator[int]:
    """Numbers from 0 to ``count`` - 1 in rising order, each of them to one process of the run.

    A process that is slow, or has the harder pieces, gets fewer of them, so that all end at about one time.

    Args:
        count: how many there are, the same in all processes.
        what: a name for this work, of which a run deals each only once.
    """
    if get_dist_info()[1] == 1:
        yield from range(count)
        return
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # A launcher's store outlives the processes that it starts anew.
    prefix = f"danseg {what}, start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store = PrefixStore(prefix, TCPStore(address, port, is_master=False, wait_for_workers=False))
    while (number := store.add("dealt", 1) - 1) < count:
        yield number
