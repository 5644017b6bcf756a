"""Who sees which picture, how many at a time, what is kept: without a browser."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bad_files import BAD, drawn
from danseg.apis import explore
from danseg.app.shown_network import ShownNetwork
from danseg.errors import UserError
from danseg.web.request_limits import RefusedError
from danseg.web.uploads import counted


def labels(explorations: list[Any]) -> list[np.ndarray]:
    return [one.labels for one in explorations]


@pytest.fixture
def passes(monkeypatch) -> list[tuple[str, bytes]]:
    """What went through which network."""
    made = []
    plain = ShownNetwork.explore

    def counted(self: ShownNetwork, picture: bytes) -> Any:
        made.append((self.name, picture))
        return plain(self, picture)

    monkeypatch.setattr(ShownNetwork, "explore", counted)
    return made


def run(script: Callable[[], Any]) -> Any:
    return asyncio.run(script())


def test_a_visitor_gets_the_labels_of_both_networks_from_a_pass_each(make_explorer, networks, pieces, passes):
    explorer, mine = make_explorer(2), drawn(7)

    async def script():
        name = await explorer.add(pieces(mine))
        found = [await explorer.ask(name, "me", labels) for _ in range(3)]
        return found, await explorer.ask(name, None, labels)

    found, by_name = run(script)
    expected = [explore(one.model, mine).labels for one in networks]
    assert passes[:2] == [("first", mine), ("second", mine)] and len(passes) == 2
    for one in (*found, by_name):
        assert all(np.array_equal(*pair) for pair in zip(one, expected, strict=True))
    assert not np.array_equal(*expected)


def test_nobody_else_gets_it(make_explorer, pieces):
    explorer = make_explorer()

    async def script():
        mine, yours = [await explorer.add(pieces(drawn(seed))) for seed in (1, 2)]
        await explorer.ask(mine, "me", labels)
        for name, session in ((mine, "you"), ("3", "me"), ("-1", "me"), ("", "me"), ("²", "me")):
            with pytest.raises(RefusedError, match="choose it again"):
                await explorer.ask(name, session, labels)
        await explorer.ask(yours, "you", labels)
        explorer.leave("me")
        with pytest.raises(RefusedError, match="choose it again"):
            await explorer.ask(mine, "me", labels)
        return await explorer.ask(yours, "you", labels)

    assert run(script)


def test_what_was_let_go_passes_again_and_memory_is_bounded(make_explorer, pieces, passes):
    explorer = make_explorer(kept=1)

    async def script():
        names = [await explorer.add(pieces(drawn(seed))) for seed in range(3)]
        first = [await explorer.ask(name, name, labels) for name in names]
        again = [await explorer.ask(name, name, labels) for name in names]
        assert len(explorer._kept) == 1
        return first, again

    first, again = run(script)
    assert len(passes) == 6
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(first, again, strict=True))


def test_all_who_ask_for_a_picture_of_the_set_wait_for_one_pass(make_explorer, pictures, passes):
    explorer = make_explorer()

    async def script():
        return await asyncio.gather(*(explorer.ask("1", f"session {one}", labels) for one in range(8)))

    assert len(run(script)) == 8 and passes == [("first", pictures[1].read_bytes())]


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_gets_one_message(make_explorer, pieces, what, tmp_path):
    content, message = BAD[what]
    explorer = make_explorer(bytes=200_000, pixels=1_000_000)

    async def script():
        stream = pieces(content)
        limited = counted(type("Request", (), {"stream": lambda self: stream})(), explorer.limits.bytes)
        name = await explorer.add(limited)
        await explorer.ask(name, "me", labels)

    with pytest.raises((RefusedError, UserError), match=message) as raised:
        run(script)
    assert "\n" not in str(raised.value) and str(tmp_path) not in str(raised.value)
    explorer.leave("me")
    assert not list((tmp_path / "private0").iterdir()) and explorer.places == 0


def test_places_are_limited_and_none_are_given_once_it_stops(make_explorer):
    explorer = make_explorer(queue=2)

    async def script():
        slow = [
            asyncio.ensure_future(explorer.ask(str(one), "me", lambda _: time.sleep(0.2))) for one in (0, 1)
        ]
        await asyncio.sleep(0.01)
        with pytest.raises(RefusedError, match="2 requests are in work or wait, and no more may"):
            await explorer.ask("2", "me", labels)
        explorer.stop()
        with pytest.raises(RefusedError, match="is stopping"):
            await explorer.ask("2", "me", labels)
        assert not explorer.stopped
        await asyncio.gather(*slow)
        assert explorer.stopped

    run(script)


def test_time_is_limited(make_explorer, monkeypatch, passes):
    explorer = make_explorer(seconds=0.1)
    monkeypatch.setattr(ShownNetwork, "explore", lambda self, picture: time.sleep(0.4))

    async def script():
        with pytest.raises(RefusedError, match="no answer within 0.1 s; try again, or") as raised:
            await explorer.ask("0", "me", labels)
        return raised.value.status

    assert run(script) == 503 and explorer.places == 0 and not explorer._making


def test_a_pass_that_ends_after_its_session_is_not_kept(make_explorer, monkeypatch, pieces):
    explorer = make_explorer()
    plain = ShownNetwork.explore

    def slow(self: ShownNetwork, picture: bytes) -> Any:
        time.sleep(0.1)
        return plain(self, picture)

    monkeypatch.setattr(ShownNetwork, "explore", slow)

    async def script():
        name = await explorer.add(pieces(drawn(0)))
        asking = asyncio.ensure_future(explorer.ask(name, "me", labels))
        await asyncio.sleep(0.05)
        explorer.leave("me")
        with pytest.raises(RefusedError, match="choose it again"):
            await asking

    run(script)
    assert not len(explorer._kept)
