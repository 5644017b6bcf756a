"""Explorations of many visitors' pictures: who may see which, how many at a time, how long they are kept."""

import asyncio
from collections.abc import AsyncIterable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from danseg.apis import Exploration
from danseg.app.kept import Entry, Kept
from danseg.app.page_limits import PageLimits
from danseg.app.shown_network import ShownNetwork
from danseg.app.visitors import Visitors
from danseg.errors import UserError, reason_of
from danseg.io.image_headers import mapped
from danseg.io.images import read_bytes
from danseg.io.parallel import available_cpus
from danseg.web.places import Places
from danseg.web.request_limits import RefusedError
from danseg.web.uploads import claimed_pixels

T = TypeVar("T")


@dataclass
class _Making:
    """A pass on its way, and how many wait for it."""

    task: "asyncio.Task[Entry]"
    waiting: int = 0


class Explorer(Places):
    """Networks, the pictures that they are shown with, and the passes that are kept.

    Forward passes go one after the other, in a thread of their own, so that questions about kept ones need
    not wait for them. A picture is named by its number in the test set, or by the secret name that
    :meth:`add` gives. All methods run in one event loop.

    Args:
        networks: at least one.
        pictures: the files of the test set; may be empty.
        folder: private, for the visitors' pictures.
        limits: what is taken and kept.
    """

    def __init__(
        self, networks: Sequence[ShownNetwork], pictures: Sequence[Path], folder: Path, limits: PageLimits
    ) -> None:
        super().__init__(limits)
        self.limits: PageLimits
        self.networks, self.pictures = networks, pictures
        self.name = " and ".join(one.name for one in networks)
        self._visitors = Visitors(folder, limits.stored)
        self._kept = Kept(limits.kept)
        self._making: dict[tuple[str, int], _Making] = {}
        self._passes = ThreadPoolExecutor(1, thread_name_prefix="passes")
        self._answers = ThreadPoolExecutor(max(2, available_cpus()), thread_name_prefix="answers")

    def close(self) -> None:
        """End the threads, after what they are computing."""
        for pool in (self._passes, self._answers):
            pool.shutdown(wait=False, cancel_futures=True)

    async def add(self, pieces: AsyncIterable[bytes]) -> str:
        """Store a visitor's picture, as its bytes arrive; gives its secret name.

        Raises:
            RefusedError: it is no picture, is too large, does not arrive in time, or there is no room.
        """
        return await self._limited(self._stored(pieces))

    async def ask(self, picture: str, session: str | None, question: Callable[[list[Exploration]], T]) -> T:
        """What a function says of a picture's explorations, one of each network.

        Args:
            picture: its name.
            session: who asks; None for whoever knows the picture's secret name.
            question: runs in another thread.

        Raises:
            RefusedError: there is no such picture, no place, or time is over.
            UserError: the networks do not take the picture, or the question's own.
        """
        return await self._limited(self._answered(picture, session, question))

    def leave(self, session: str) -> None:
        """Let go all that is a session's own."""
        self._let_go(self._visitors.leave(session))

    def _let_go(self, names: Sequence[str]) -> None:
        for name in names:
            self._kept.drop(name)

    async def _limited(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        try:
            with self.place():
                return await asyncio.wait_for(task, self.limits.seconds)
        except asyncio.TimeoutError:
            raise RefusedError(
                503, f"no answer within {self.limits.seconds:g} s; try again, or choose a smaller picture"
            ) from None
        finally:
            task.cancel()

    async def _stored(self, pieces: AsyncIterable[bytes]) -> str:
        name, path = self._visitors.new()
        try:
            with path.open("xb") as file:
                async for piece in pieces:
                    file.write(piece)
            await self._in(self._answers, self._check, path)
            self._let_go(self._visitors.add(name))
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise RefusedError(503, f"the picture cannot be stored: {reason_of(error)}") from error
            raise
        return name

    def _check(self, path: Path) -> None:
        with mapped(path) as data:
            claimed_pixels(data, self.limits.pixels)

    async def _answered(
        self, picture: str, session: str | None, question: Callable[[list[Exploration]], T]
    ) -> T:
        if not self._of_the_set(picture):
            self._let_go(self._visitors.claim(picture, session) if session else [])
            self._visitors.path(picture)
        entries = [await self._entry((picture, number)) for number in range(len(self.networks))]

        try:
            return await self._in(self._answers, question, [entry.value for entry in entries])
        finally:
            for entry in entries:
                self._kept.measure(entry)

    def _of_the_set(self, picture: str) -> bool:
        return picture.isdecimal() and picture.isascii() and int(picture) < len(self.pictures)

    async def _entry(self, key: tuple[str, int]) -> Entry:
        """What is kept for a picture and a network, or a new pass, which all wait for who ask for it."""
        if (kept := self._kept.get(key)) is not None:
            return kept
        if key not in self._making:
            self._making[key] = _Making(asyncio.ensure_future(self._made(key)))
        making = self._making[key]
        making.waiting += 1
        try:
            return await asyncio.shield(making.task)
        finally:
            making.waiting -= 1
            if not making.waiting:
                making.task.cancel()
                self._making.pop(key, None)

    async def _made(self, key: tuple[str, int]) -> Entry:
        picture, number = key
        of_the_set = self._of_the_set(picture)
        path = self.pictures[int(picture)] if of_the_set else self._visitors.path(picture)

        def explored() -> Exploration:
            data = read_bytes(path)
            if of_the_set:  # the others were checked when they came
                claimed_pixels(data, self.limits.pixels)
            return self.networks[number].explore(data)

        try:
            exploration = await self._in(self._passes, explored)
        except ValueError as error:
            raise UserError(str(error)) from error
        if not of_the_set:
            self._visitors.path(picture)  # which may have gone meanwhile, with its session
        return self._kept.put(key, exploration)

    async def _in(self, pool: Executor, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
