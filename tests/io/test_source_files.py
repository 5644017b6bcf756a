"""Folders that are searched and files that are read: links, loops, FIFOs, sockets, what cannot be read."""

import os
import socket

import pytest

from danseg.errors import UserError
from danseg.io import source_files
from danseg.io.image_headers import mapped
from danseg.io.images import read_bytes
from danseg.io.source_files import fault, files_below, open_file, read_file, read_lines
from danseg.label_maps.label_png import read_label_map


def fifo(path):
    os.mkfifo(path)


def bound_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))  # the name of a socket may have a hundred characters


def dangling(path):
    path.symlink_to("nothing")


def circular(path):
    path.symlink_to(path)


FAULTS = {
    "it is a FIFO": fifo,
    "it is a socket": bound_socket,
    "it is a folder": lambda path: path.mkdir(),
    "it is a link to nothing, which does not exist": dangling,
    "Too many levels of symbolic links": circular,
    "it does not exist": lambda path: None,
}
READERS = [read_file, open_file, read_bytes, read_label_map, lambda path: mapped(path).__enter__()]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("why", FAULTS)
def test_what_is_no_file_is_told_and_never_opened(tmp_path, monkeypatch, why, reader):
    path = tmp_path / "a.png"
    FAULTS[why](path)
    assert fault(path) == why
    monkeypatch.setattr(source_files, "open", lambda *_: pytest.fail("opened"), raising=False)
    with pytest.raises((OSError, UserError)) as error:
        reader(path)
    assert why in str(error.value) and str(path) in str(error.value)


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"abc")
    (tmp_path / "link").symlink_to(path)
    assert fault(path) is None and read_file(tmp_path / "link") == b"abc"
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may do anything
    assert fault(path) == "Permission denied"
    assert fault("a\0b") == "embedded null byte"


def below(folder, suffix=".png") -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_below(folder, suffix)]


@pytest.fixture
def tree(tmp_path):
    for name in ("top/a.png", "top/one/b.png", "top/.hidden/c.png", "top/.d.png", "top/e.txt", "else/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    return tmp_path / "top"


def test_linked_folders_are_followed_once_and_loops_end(tree):
    assert below(tree) == ["a.png", "one/b.png"]
    (tree / "also").symlink_to("../else")
    (tree / "again").symlink_to("one")
    (tree / "one" / "up").symlink_to("..")
    (tree / "one" / "top").symlink_to(tree.parent)
    (tree.parent / "else" / "back").symlink_to(tree / "one")
    assert below(tree) == ["a.png", "also/f.png", "one/b.png"]
    (tree.parent / "link").symlink_to(tree)
    assert below(tree.parent / "link") == ["a.png", "also/f.png", "one/b.png"]
    assert below(tree, "") == ["a.png", "again", "also", "also/back", "also/f.png", "e.txt", "one"] + [
        "one/b.png",
        "one/top",
        "one/up",
    ]


@pytest.mark.parametrize("why", list(FAULTS)[:-1])
def test_whatever_has_the_suffix_is_found(tree, why, monkeypatch):
    monkeypatch.chdir(tree)
    FAULTS[why](tree / "x.png")
    assert below(tree) == ["a.png", "one/b.png", "x.png"]


def test_a_folder_that_cannot_be_read_and_a_link_to_none_are_named(tree, monkeypatch):
    (tree / "two").symlink_to("../lost")
    with pytest.raises(UserError, match=r"top/two: it is a link to \.\./lost, which does not exist; mend"):
        files_below(tree, ".png")
    (tree / "two").unlink()
    real = os.scandir

    def refuse(path):
        if str(path).endswith("one"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"the folder .*top/one cannot be read: Permission denied; make it"):
        files_below(tree, ".png")


def test_the_lines_of_a_text_are_those_that_line_feeds_end(tmp_path):
    file = tmp_path / "list.txt"
    file.write_bytes("\ufeffa\u2028b.png\tä\r\n\n c".encode())
    assert read_lines(file, "the list") == ["a\u2028b.png\tä", "", " c"]
    file.write_bytes(b"one\n\xff")
    with pytest.raises(UserError, match=r"^the list is not UTF-8 \(byte 4\); save it so$"):
        read_lines(file, "the list")
    with pytest.raises(UserError, match="^the list cannot be read: it is a folder$"):
        read_lines(tmp_path, "the list")
