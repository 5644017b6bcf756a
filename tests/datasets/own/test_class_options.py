"""--classes, --map and --colours are read as written, or refused with what is allowed."""

import pytest

from danseg.datasets.own.class_options import class_number, read_classes, read_colours, read_map
from danseg.errors import UserError


def test_classes(tmp_path):
    assert read_classes("road, tree ,traffic light") == ("road", "tree", "traffic light")
    (tmp_path / "names.txt").write_text("road\n\n traffic, light \n", encoding="utf-8-sig")
    assert read_classes(str(tmp_path / "names.txt")) == ("road", "traffic, light")
    for text, said in (
        ("a,a", "holds 'a' twice"),
        ("a,,b", "name of class 1 is ''"),
        (str(tmp_path / "gone.txt"), "gone.txt cannot be read: it does not exist"),
    ):
        with pytest.raises(UserError, match=said):
            read_classes(text)


def test_map():
    assert read_map(["255:1", " 7 : road ", "a:b:c"]) == {"255": "1", "7": "road", "a:b": "c"}
    for text in ("255", "255:", ":1", ":"):
        with pytest.raises(UserError, match=f"--map {text!r} is not ID:CLASS"):
            read_map([text])
    with pytest.raises(UserError, match="gives 1 both 2 and 3"):
        read_map(["1:2", "1:2", "1:3"])


def test_class_number():
    names = ["road", "7", "tree"]
    assert [class_number(one, names, "x") for one in ("tree", "7", "2", "ignore")] == [2, 1, 2, 255]
    for wrong in ("3", "-1", "Road", "²"):
        with pytest.raises(UserError, match="x: .* is no class.*0 road, 1 7, 2 tree"):
            class_number(wrong, names, "x")


@pytest.mark.parametrize(
    "text",
    [
        "road,128,64,128\ntraffic light 2,7,0,9\nignore,0,0,0\n",
        "# comment\nname,r,g,b\nroad, 128, 64, 128\n\ntraffic light 2: 7 0 9\nignore;0;0;0",
        "128 64 128\troad\n7 0 9\ttraffic light 2\n0 0 0\tignore\n",
        "# label:color_rgb:parts:actions\nroad:128,64,128::\ntraffic light 2:7,0,9:a,b:\nignore:0,0,0::",
    ],
)
def test_forms_of_colours(tmp_path, text):
    (tmp_path / "colours").write_text(text)
    found = read_colours(tmp_path / "colours", None)
    assert found.names == ("road", "traffic light 2")
    assert found.shown == ((128, 64, 128), (7, 0, 9))
    border = {0xE0E0C0: 255} if "color_rgb" in text else {}
    assert found.colours == {0x804080: 0, 0x070009: 1, 0: 255} | border


def test_several_colours_of_a_class_and_another_order(tmp_path):
    (tmp_path / "colours").write_text("tree,0,1,0\nroad,1,1,1\ntree,0,2,0\n")
    found = read_colours(tmp_path / "colours", ("road", "tree"))
    assert (found.names, found.shown) == (("road", "tree"), ((1, 1, 1), (0, 1, 0)))
    assert found.colours == {0x000100: 1, 0x010101: 0, 0x000200: 1}


@pytest.mark.parametrize(
    ("text", "names", "said"),
    [
        ("road,1,2\n", None, "line 1: 'road,1,2' is no colour; write name,red,green,blue"),
        ("road,1,2,3\nname,r,g,b\n", None, "line 2"),
        ("road,1,2,256\n", None, "line 1: .* has a number beyond 255"),
        ("road,1,2,3\ntree,1,2,3\n", None, "line 2: tree has the colour of road, 1 2 3"),
        ("", None, "names no class"),
        ("ignore,1,2,3", None, "names no class"),
        ("road,1,2,3", ("road", "tree"), "and --classes differ in tree"),
        ("road,1,2,3\ntree,1,2,4", ("road",), "and --classes differ in tree"),
        (None, None, "--colours .* cannot be read: it does not exist"),
    ],
)
def test_wrong_colours(tmp_path, text, names, said):
    if text is not None:
        (tmp_path / "colours").write_text(text)
    with pytest.raises(UserError, match=said):
        read_colours(tmp_path / "colours", names)


def test_colours_of_another_encoding(tmp_path):
    (tmp_path / "colours").write_bytes("Straße,1,2,3".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8"):
        read_colours(tmp_path / "colours", None)
