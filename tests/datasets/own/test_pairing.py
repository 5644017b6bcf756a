"""Images and labels are paired by name; what is ambiguous or alone is named with its fix."""

from pathlib import Path

import pytest

from danseg.datasets.own.pairing import pair, pictures
from danseg.errors import UserError


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def named(*names, suffix=".png"):
    return {name: Path(f"/{name}{suffix}") for name in names}


def test_pictures_by_name(tmp_path):
    touch(tmp_path, "a.JPG", "sub/b.tiff", "sub/c.webp", "notes.txt", ".hidden.png", "d.e.png")
    files = {"a": "a.JPG", "d.e": "d.e.png", "sub/b": "sub/b.tiff", "sub/c": "sub/c.webp"}
    assert pictures(tmp_path) == ({name: tmp_path / file for name, file in files.items()}, [])


def test_endings(tmp_path):
    touch(tmp_path, "a_mask.png", "a.png", "b_mask.png")
    found, notes = pictures(tmp_path, "_mask")
    assert list(found) == ["a", "b"]
    assert notes == [f"left out: 1 file without '_mask' at the end: {tmp_path / 'a.png'}"]
    found, notes = pictures(tmp_path, without="_mask")
    assert (list(found), notes) == (["a"], [])
    with pytest.raises(UserError, match="no image with a name that ends in '_gt', only a.png, a_mask.png"):
        pictures(tmp_path, "_gt")


def test_two_of_one_name(tmp_path):
    touch(tmp_path, "a.jpg", "a.png")
    with pytest.raises(UserError, match="a.jpg and .*a.png have the same name but for its suffix"):
        pictures(tmp_path)


@pytest.mark.parametrize("name", ["a\tb.png", "a\nb.png", "a\udcffb.png"])
def test_names_that_no_list_can_hold(tmp_path, name):
    touch(tmp_path, name)
    with pytest.raises(UserError, match="has a tab, a line break or bytes that are not UTF-8; rename it"):
        pictures(tmp_path)


def test_no_folder(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(UserError, match="nowhere is missing"):
        pictures(tmp_path / "nowhere")
    with pytest.raises(UserError, match="a.png is a file"):
        pictures(tmp_path / "a.png")


def test_the_same_path_comes_before_the_same_name():
    found = pair(named("x/a", "y/a", "b"), named("y/a", "x/a", "deep/b"), allow_unpaired=False)
    assert [(name, str(label)) for name, _, label in found.pairs] == [
        ("b", "/deep/b.png"),
        ("x/a", "/x/a.png"),
        ("y/a", "/y/a.png"),
    ]
    assert found.notes == ["1 pair by name alone, in other subfolders, such as b and deep/b"]


def test_a_name_that_occurs_twice_is_not_guessed():
    with pytest.raises(
        UserError, match="2 images have no label: /x/a.png, /y/a.png; 1 label has no image: /z/a"
    ):
        pair(named("x/a", "y/a", "b"), named("z/a", "b"), allow_unpaired=False)


@pytest.mark.parametrize(
    ("images", "labels", "hint"),
    [
        (["a", "b"], ["a_mask", "b_mask"], "If all labels end like a_mask, give --mask-suffix _mask"),
        (["a_img", "b_img"], ["a", "b"], "If all images end like a_img, give --image-suffix _img"),
        (["a"], ["z"], "Add what is missing$"),
    ],
)
def test_the_ending_that_would_pair_is_said(images, labels, hint):
    with pytest.raises(UserError, match=hint):
        pair(named(*images), named(*labels), allow_unpaired=True)  # nothing pairs at all


def test_left_out_on_request():
    found = pair(named("a", "b"), named("b", "c"), allow_unpaired=True)
    assert [name for name, _, _ in found.pairs] == ["b"]
    assert found.notes == [
        "left out: 1 image has no label: /a.png",
        "left out: 1 label has no image: /c.png",
    ]
