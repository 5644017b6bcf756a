"""A room of limited size for the pictures that are in memory at the same time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Room:
    """Lets in what fits, in the order of arrival.

    Args:
        size: how much is in it at the same time, in the unit of what enters. Larger things enter alone.
    """

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._door = asyncio.Lock()  # behind it, the next one waits until there is room; locks keep the order
        self._left = asyncio.Event()

    @contextlib.asynccontextmanager
    async def holding(self, size: int) -> AsyncIterator[None]:
        """Wait for room, and hold it during the block."""
        size = min(size, self._size)
        async with self._door:
            while self._free < size:
                self._left.clear()
                await self._left.wait()
            self._free -= size
        try:
            yield
        finally:
            self._free += size
            self._left.set()
