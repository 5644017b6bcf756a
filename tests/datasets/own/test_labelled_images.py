"""Images and labels from one place or two, beside each other or in one folder, become named pairs."""

import numpy as np
import pytest

import own_sets
from danseg.datasets.own.labelled_images import Place, find_labelled_images
from danseg.errors import UserError


def touch(folder, *names):
    for name in names:
        own_sets.save(np.zeros((2, 2), np.uint8), folder / name)


def find(place, val_images=None, val_labels=None, image_suffix="", mask_suffix=""):
    return find_labelled_images(
        place,
        val_images,
        val_labels,
        image_suffix=image_suffix,
        mask_suffix=mask_suffix,
        allow_unpaired=False,
    )


def told(found):
    return [(name, image.name, label.name) for name, image, label in found.pairs]


@pytest.mark.parametrize(
    ("names", "suffixes"),
    [
        (["a.jpg", "a_mask.png"], dict(mask_suffix="_mask")),
        (["a.jpg", "a_mask.png"], dict(mask_suffix="_mask.png")),
        (["a_img.jpg", "a.png"], dict(image_suffix="_img")),
        (["a_img.jpg", "a_gt.png"], dict(image_suffix="_img", mask_suffix="_gt")),
    ],
)
def test_one_folder_for_both(tmp_path, names, suffixes):
    touch(tmp_path, *names)
    found = find(Place(tmp_path, tmp_path), **suffixes)
    assert (told(found), found.notes) == ([("a", *names)], [])
    with pytest.raises(UserError, match="images and masks both lie in .*--mask-suffix"):
        find(Place(tmp_path, tmp_path))


def test_files_without_the_ending_are_named(tmp_path):
    touch(tmp_path, "i/a.jpg", "m/a_ids.png", "m/a_colour.png")
    found = find(Place(tmp_path / "i", tmp_path / "m"), mask_suffix="_ids")
    assert found.notes == [f"left out: 1 file without '_ids' at the end: {tmp_path / 'm/a_colour.png'}"]


def test_val_below_the_images(tmp_path):
    touch(tmp_path, "i/a.jpg", "i/v/b.jpg", "m/a.png", "m/v/b.png")
    found = find(Place(tmp_path / "i", tmp_path / "m"), tmp_path / "i/v")
    assert told(found) == [("a", "a.jpg", "a.png"), ("v/b", "b.jpg", "b.png")]
    assert (found.val, found.images) == ([1], tmp_path / "i")
    # With the masks' folder named too it is the same, in whatever way they lie there.
    found = find(Place(tmp_path / "i", tmp_path / "m"), tmp_path / "i/v", tmp_path / "m/v")
    assert (told(found), found.val) == ([("a", "a.jpg", "a.png"), ("v/b", "b.jpg", "b.png")], [1])


def test_two_places(tmp_path):
    touch(tmp_path, "train/i/a.jpg", "train/m/a.png", "val/i/a.jpg", "val/m/a.png")
    val = tmp_path / "val"
    found = find(Place(tmp_path / "train/i", tmp_path / "train/m"), val / "i", val / "m")
    assert [name for name, _, _ in found.pairs] == ["train/i/a", "val/i/a"]
    assert (found.val, found.images, found.form.masks) == ([1], tmp_path, tmp_path)
    with pytest.raises(UserError, match="name its masks too, by --val-masks"):
        find(Place(tmp_path / "train/i", tmp_path / "train/m"), val / "i")


def test_two_files_of_polygons(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        (tmp_path / split).mkdir()
        own_sets.coco_set(tmp_path / split, count)
    train, val = tmp_path / "train", tmp_path / "val"
    found = find(Place(train / "images", train / "instances.json"), val / "images", val / "instances.json")
    assert (len(found.pairs), found.val) == (5, [3, 4])
    assert found.form.order == ("disc", "box")
    touch(tmp_path, "m/000.png", "m/001.png")
    with pytest.raises(UserError, match="are of different forms; export both alike"):
        find(Place(train / "images", train / "instances.json"), val / "images", tmp_path / "m")


def test_one_side_without_images(tmp_path):
    touch(tmp_path, "i/a.jpg", "m/a.png")
    (tmp_path / "i/v").mkdir()
    with pytest.raises(UserError, match="no image with a label lies below --val-images"):
        find(Place(tmp_path / "i", tmp_path / "m"), tmp_path / "i/v")
    touch(tmp_path, "i/v/a.jpg", "m/v/a.png")
    for path in ("i/a.jpg", "m/a.png"):
        (tmp_path / path).unlink()
    with pytest.raises(UserError, match="no image with a label lies outside of --val-images"):
        find(Place(tmp_path / "i", tmp_path / "m"), tmp_path / "i/v")
