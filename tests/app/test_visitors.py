"""Pictures belong to one session, lie in the private folder, and go with it."""

import pytest

from danseg.app.visitors import Visitors
from danseg.web.request_limits import RefusedError


@pytest.fixture
def visitors(tmp_path) -> Visitors:
    return Visitors(tmp_path, most=100)


def store(visitors: Visitors, size: int = 10) -> str:
    name, path = visitors.new()
    path.write_bytes(bytes(size))
    visitors.add(name)
    return name


def test_a_picture_is_its_sessions_alone(visitors):
    mine = store(visitors)
    assert visitors.claim(mine, "me") == [] and visitors.claim(mine, "me") == []
    for name, session in ((mine, "you"), ("nothing", "me"), ("../secret", "me")):
        with pytest.raises(RefusedError, match="not kept any more; choose it again"):
            visitors.claim(name, session)


def test_names_are_long_and_never_the_same(visitors):
    names = {visitors.new()[0] for _ in range(50)}
    assert len(names) == 50 and min(map(len, names)) >= 32


def test_a_session_has_one_picture_and_none_when_it_has_left(visitors, tmp_path):
    first, second, other = (store(visitors) for _ in range(3))
    visitors.claim(first, "me"), visitors.claim(other, "you")
    assert visitors.claim(second, "me") == [first]
    assert {path.name for path in tmp_path.iterdir()} == {second, other}
    assert visitors.leave("me") == [second] and visitors.leave("me") == []
    assert [path.name for path in tmp_path.iterdir()] == [other] and visitors.path(other).exists()
    with pytest.raises(RefusedError):
        visitors.path(second)


def test_the_oldest_go_when_there_are_too_many(visitors, tmp_path):
    names = [store(visitors, 30) for _ in range(4)]
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])
    large = store(visitors, 500)
    assert [path.name for path in tmp_path.iterdir()] == [large]
