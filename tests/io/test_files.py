"""A file appears whole or not at all."""

import pytest

from danseg.errors import UserError
from danseg.io.files import whole_file


def test_no_half_file_when_writing_fails(tmp_path):
    with pytest.raises(UserError, match="x.png: .*No space left"):
        with whole_file(tmp_path / "x.png") as part:
            part.write_bytes(b"half")
            raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_the_file_replaces_an_older_one_when_it_is_whole(tmp_path):
    (tmp_path / "x.json").write_text("old")
    with whole_file(tmp_path / "x.json") as part:
        part.write_text("new")
        assert (tmp_path / "x.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert (tmp_path / "x.json").read_text() == "new"
