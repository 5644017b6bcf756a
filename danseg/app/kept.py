"""What was made for pictures, kept until newer things need its room."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from danseg.app.held_bytes import held_bytes


@dataclass(eq=False)
class Entry:
    """Something kept, and its bytes."""

    value: Any
    size: int = 0


class Kept:
    """Things of at most so many bytes together; those that were not used for the longest time go first.

    The newest one stays, however large it is. All methods run in one thread.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes of all together."""
        return sum(entry.size for entry in self._entries.values())

    def get(self, key: Hashable) -> Entry | None:
        """What is kept for a key, which counts as used."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: Hashable, value: Any) -> Entry:
        """Keep something."""
        entry = self._entries[key] = Entry(value)
        self._entries.move_to_end(key)
        self.measure(entry)
        return entry

    def measure(self, entry: Entry) -> None:
        """Look again how large a thing is, as what it keeps grows with use, and make room."""
        entry.size = held_bytes(entry.value)
        while self.size > self._most and len(self._entries) > 1:
            self._entries.popitem(last=False)

    def drop(self, picture: str) -> None:
        """Let go what is kept for a picture, the first part of its keys."""
        for key in [key for key in self._entries if isinstance(key, tuple) and key[0] == picture]:
            del self._entries[key]
