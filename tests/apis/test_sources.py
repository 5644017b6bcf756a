"""What is predicted, and what its outputs are called."""

import os

import pytest

from danseg.apis.sources import CAMERA, PICTURE, VIDEO, Source, find_sources
from danseg.errors import UserError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Empty files: what they hold is looked at when their turn comes."""
    for name in ("in/x.png", "in/a/x.png", "in/b/c/x.JPG", "in/b/drive.mp4", "in/notes.md", "in/.hidden.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*given, out="out", **options):
    return {one.name: one.path for one in find_sources(given, out, **options).sources}


def test_a_folder_is_searched_and_its_files_keep_their_path(tree):
    found = find_sources(["in"], "out")
    assert found.sources == [
        Source("in/a/x.png", "a/x", PICTURE),
        Source("in/b/c/x.JPG", "b/c/x", PICTURE),
        Source("in/b/drive.mp4", "b/drive", VIDEO),
        Source("in/x.png", "x", PICTURE),
    ]
    assert found.left_out == {".md": 1}


def test_patterns_keep_the_path_below_what_is_fixed(tree):
    assert names("in/**/*.png") == {"a/x": "in/a/x.png", "x": "in/x.png"}
    assert names("in/b/*/x*") == {"c/x": "in/b/c/x.JPG"}
    assert names("in/?.png") == {"x": "in/x.png"}


@pytest.mark.parametrize("named", ["@{}", "{}"])
def test_a_list_keeps_the_path_below_the_folder_that_all_share(tree, named):
    list_ = tree / "in" / "list.txt"
    list_.write_bytes(f"\ufeffa/x.png\r\n\n{tree / 'in' / 'b' / 'c' / 'x.JPG'}\n".encode())
    expected = {"a/x": str(tree / "in/a/x.png"), "b/c/x": str(tree / "in/b/c/x.JPG")}
    assert names(named.format(list_)) == expected


def test_a_file_has_its_own_name_and_need_not_exist(tree):
    assert names("in/a/x.png", "nowhere.png") == {"x": "in/a/x.png", "nowhere": "nowhere.png"}


def test_the_same_file_twice_is_predicted_once(tree):
    assert names("in/x.png", "./in/x.png", "in/*.png") == {"x": "in/x.png"}


def test_a_name_with_the_signs_of_a_pattern_is_a_file(tree):
    (tree / "x[1].png").touch()
    assert names("x[1].png") == {"x[1]": "x[1].png"}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("0", "camera_0"),
        (os.devnull, "null"),
        ("rtsp://user:secret@host:554/live/1", "host_live_1"),
        ("https://host/clip.mp4", "host_clip.mp4"),
    ],
)
def test_cameras_have_names(tree, given, name):
    assert find_sources([given], "out").sources == [Source(given, name, CAMERA)]


def test_a_picture_at_an_address_is_a_picture(tree):
    for address in ("https://host/street.png", "https://host/street.png?size=[4]"):
        assert find_sources([address], "out").sources == [Source(address, "street", PICTURE)]


def test_a_file_called_like_a_number_is_a_file(tree):
    (tree / "0").touch()
    assert find_sources(["0"], "out").sources[0].kind == PICTURE


def test_what_lies_in_the_output_folder_is_nothing_to_predict(tree):
    (tree / "in" / "out" / "a").mkdir(parents=True)
    (tree / "in" / "out" / "a" / "x_labels.png").touch()
    assert sorted(names("in", out="in/out")) == ["a/x", "b/c/x", "b/drive", "x"]
    assert sorted(names("in/**/*.png", out="in/out")) == ["a/x", "x"]
    for given in ("in", "in/*.png"):
        with pytest.raises(UserError, match="--out in is the folder of the pictures"):
            names(given, out="in")
    assert names("in/x.png", out="in") == {"x": "in/x.png"}


def test_mosaics_are_pictures_of_tiles_alone(tree):
    (tree / "in" / "m.vrt").touch()
    assert "m" in names("in", tiles=True) and "m" not in names("in")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["in/a/x.png", "in/x.png"], "in/a/x.png and in/x.png would have the same outputs, .*above both"),
        (["in"], r"in/x.jpg and in/x.png would have the same outputs, .*by a pattern \('in/\*.jpg'\)"),
        (["none/*.png"], "no file matches the pattern 'none/"),
        (["empty"], "empty holds no picture and no video"),
        (["@gone"], "the list gone cannot be read: it does not exist"),
        (["empty.txt"], "the list empty.txt names no file"),
        (["latin.txt"], "the list latin.txt is not UTF-8"),
    ],
)
def test_what_cannot_be_predicted_is_one_message(tree, given, says):
    (tree / "empty").mkdir()
    (tree / "empty.txt").write_text("\n")
    (tree / "latin.txt").write_bytes("straße.png".encode("latin-1"))
    if given == ["in"]:
        (tree / "in" / "x.jpg").touch()
    with pytest.raises(UserError, match=says):
        names(*given)


def test_a_folder_that_cannot_be_read_is_one_message(tree, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="the folder in cannot be read: Permission denied"):
        names("in")
