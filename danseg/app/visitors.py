"""The visitors' own pictures: files of random names in a private folder, each for one session."""

import secrets
from collections import OrderedDict
from pathlib import Path

from danseg.web.request_limits import RefusedError

GONE = "this picture is not kept any more; choose it again"


class Visitors:
    """Which pictures there are, and whose they are. All methods run in one thread.

    A picture's name is a secret: who knows it may see the picture. The first session that opens it owns it.

    Args:
        folder: private, and the pictures' alone.
        most: bytes of all pictures together; the oldest ones go first.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._owners: dict[str, str] = {}

    def new(self) -> tuple[str, Path]:
        """A name, and the file to write the picture to; :meth:`add` follows."""
        name = secrets.token_urlsafe(24)
        return name, self._folder / name

    def add(self, name: str) -> list[str]:
        """Take in a file that was written; gives the names of those that had to go for it."""
        self._sizes[name] = (self._folder / name).stat().st_size
        gone = []
        while sum(self._sizes.values()) > self._most and len(self._sizes) > 1:
            gone += self._forget_all([next(iter(self._sizes))])
        return gone

    def claim(self, name: str, session: str) -> list[str]:
        """Make a picture a session's, in the place of its former ones, whose names are given.

        Raises:
            RefusedError: there is no such picture, or it is another session's, which is the same.
        """
        if name not in self._sizes or self._owners.setdefault(name, session) != session:
            raise RefusedError(404, GONE)
        return self._forget_all([one for one in self._of(session) if one != name])

    def path(self, name: str) -> Path:
        """Where a picture is.

        Raises:
            RefusedError: nowhere.
        """
        if name not in self._sizes:
            raise RefusedError(404, GONE)
        return self._folder / name

    def leave(self, session: str) -> list[str]:
        """Delete the pictures of a session that has ended, whose names are given."""
        return self._forget_all(self._of(session))

    def _of(self, session: str) -> list[str]:
        return [name for name, owner in self._owners.items() if owner == session]

    def _forget_all(self, names: list[str]) -> list[str]:
        for name in names:
            self._sizes.pop(name, None)
            self._owners.pop(name, None)
            (self._folder / name).unlink(missing_ok=True)
        return names
