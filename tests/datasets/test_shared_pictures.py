"""Pictures in two splits are found by their content; few files are read, and none a second time."""

import hashlib

import pytest

from danseg.datasets import shared_pictures as module
from danseg.datasets.shared_pictures import shared_pictures


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(**contents: bytes) -> list[str]:
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        return [str(tmp_path / name) for name in contents]

    return write


def test_equal_content_is_found_and_only_files_of_equal_size_are_read(files, monkeypatch):
    read = []
    real = module.read_file
    monkeypatch.setattr(module, "read_file", lambda path: read.append(path) or real(path))
    train = files(a=b"12", b=b"345", c=b"6789", d=b"345")
    val = files(x=b"345", y=b"xyz", z=b"12345")
    assert shared_pictures(train, val, progress=False) == [(val[0], train[1])]
    assert sorted(read) == sorted([train[1], train[3], *val[:2]])
    assert shared_pictures(train, val, progress=False) == [(val[0], train[1])]
    assert len(read) == 4  # remembered
    files(z=b"12")
    assert shared_pictures(train, val, progress=False) == [(val[0], train[1]), (val[2], train[0])]
    assert shared_pictures(train[2:3], val, progress=False) == []


def test_the_same_file_in_both_is_found(files):
    both = files(a=b"1", b=b"2")
    assert shared_pictures(both, both[:1], progress=False) == [(both[0], both[0])]
    assert hashlib.sha256(b"1").hexdigest() == module._digest(both[0])
