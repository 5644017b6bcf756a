"""A file appears whole or not at all."""

import os
import sys

import pytest

from danseg.errors import UserError
from danseg.io.files import append_whole, files_together, make_folder, whole_file
from full_disk import full_disk


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


def test_a_folder_of_that_name_stays(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="x is not a file"):
        with whole_file(tmp_path / "x") as part:
            part.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_writers_of_one_name_do_not_meet(tmp_path):
    with whole_file(tmp_path / "x") as first, whole_file(tmp_path / "x") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "x").read_text() == "first"  # the outer block ends last


def test_files_that_belong_together_take_their_places_together(tmp_path):
    (tmp_path / "x.xml").write_text("old")
    (tmp_path / "x.bin").write_text("old")
    with files_together(tmp_path / "x.xml") as part:
        assert part.name == "x.xml" and part.parent.parent == tmp_path
        part.write_text("new")
        part.with_suffix(".bin").write_text("new")
        assert (tmp_path / "x.xml").read_text() == (tmp_path / "x.bin").read_text() == "old"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.xml": "new", "x.bin": "new"}


def test_nobody_reads_an_old_file_with_new_ones_beside_it(tmp_path, monkeypatch):
    (tmp_path / "x.xml").write_text("old")
    replace, seen = os.replace, []

    def watched(source, target):
        seen.append(((tmp_path / "x.xml").exists(), (tmp_path / "x.bin").exists()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    with files_together(tmp_path / "x.xml") as part:
        part.write_text("new")
        part.with_suffix(".bin").write_text("new")
    assert seen == [(False, False), (False, True)]


@pytest.mark.parametrize(
    "error, said", [(ValueError("no"), "no"), (OSError(28, "full"), "cannot write .*x.xml: full")]
)
def test_none_of_the_files_together_when_writing_fails(error, said, tmp_path):
    (tmp_path / "x.bin").write_text("old")
    with pytest.raises((ValueError, UserError), match=said), files_together(tmp_path / "x.xml") as part:
        part.write_text("new")
        part.with_suffix(".bin").write_text("new")
        raise error
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.bin": "old"}


def test_files_together_go_again_if_one_cannot_take_its_place(tmp_path, monkeypatch):
    replace = os.replace

    def full(source, target):
        if target.name == "x.xml":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"), files_together(tmp_path / "x.xml") as part:
        part.write_text("new")
        part.with_suffix(".bin").write_text("new")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads names of open files from /proc")
def test_a_durable_file_is_written_to_the_disk_with_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    with whole_file(tmp_path / "x", durable=True) as part:
        part.write_text("new")
    assert synced == [str(part), str(tmp_path)]


def test_make_folder(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(str(tmp_path / "a")) == tmp_path / "a"  # it may be there


def test_make_folder_says_what_is_in_the_way(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="cannot make the work dir .*x.*; choose --work-dir"):
        make_folder(tmp_path / "x" / "y", "the work dir", "choose --work-dir")


def test_make_folder_refuses_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, as in containers, may write anywhere
    with pytest.raises(UserError, match="cannot write to the folder"):
        make_folder(tmp_path)


def test_what_is_appended_is_whole_or_not_there(tmp_path):
    path = tmp_path / "lines"
    append_whole(path, b"first\n")
    with pytest.raises(OSError, match="File too large"), full_disk(room=8):
        append_whole(path, b"second\n")  # two bytes of it fit
    assert path.read_bytes() == b"first\n"
    append_whole(path, b"third\n")
    assert path.read_bytes() == b"first\nthird\n"
    with pytest.raises(OSError, match="File too large"), full_disk(room=2):
        append_whole(tmp_path / "new", b"second\n")
    assert not (tmp_path / "new").exists()
