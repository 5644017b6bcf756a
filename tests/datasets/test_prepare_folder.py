"""Sets of every form become what was drawn, nothing of the user's changes, and no failure leaves a file."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import own_sets
from danseg.dataset_file import read_dataset_file
from danseg.datasets.prepare_folder import folder
from danseg.errors import UserError
from danseg.label_maps.label_png import read_label_map
from full_disk import full_disk

COUNT = 10
# Where images and labels lie, and what more has to be said of each set.
SETS = {
    "ids": ("images", "masks", dict(classes="ground,disc,box")),
    "binary": ("images", "masks", dict(classes="ground,thing", remap=["255:thing"])),
    "colour": ("images", "masks", dict(colours="colours.csv", mask_suffix="_mask")),
    "labelme": ("images", "labels", dict(classes="ground,disc,box", outside="ground")),
    "coco": ("images", "instances.json", dict(outside="ground")),
    "cvat": ("images", "annotations.xml", dict(classes="ground,disc,box", outside="ground")),
    "voc": ("JPEGImages", ".", {}),
}
IN_PLACE = ("ids", "binary")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make(kind, place, count=COUNT):
    place.mkdir()
    true = getattr(own_sets, f"{kind}_set")(place, count)
    images, labels, options = SETS[kind]
    if "colours" in options:
        options = options | dict(colours=place / options["colours"])
    return true, dict(images=place / images, masks=place / labels, progress=False, **options)


@pytest.fixture(scope="module")
def ids_source(tmp_path_factory):
    place = tmp_path_factory.mktemp("source") / "ids"
    return make("ids", place, 6)


@pytest.fixture
def ids(ids_source, tmp_path):
    """A copy of a set of ids, and how to prepare it."""
    _, options = ids_source
    shutil.copytree(options["images"].parent, tmp_path / "set")
    return options | dict(images=tmp_path / "set/images", masks=tmp_path / "set/masks", out=tmp_path / "out")


def snapshot(place):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
        for path in sorted(place.rglob("*"))
        if "cache" not in path.relative_to(place).parts
    }


def classes_of(out, split):
    """The classes that a split's masks stand for, by the names of its images."""
    read = read_dataset_file(out)
    table = np.full(256, 99, np.uint8)  # an id that is not listed
    table[list(read.label_ids)] = list(read.label_ids.values())
    names = (os.path.relpath(os.path.splitext(image)[0], read.images) for image, _ in read.pairs(split))
    return {
        name: table[read_label_map(mask)] for name, (_, mask) in zip(names, read.pairs(split), strict=True)
    }


@pytest.mark.parametrize("kind", SETS)
def test_what_was_drawn_is_what_is_read(kind, tmp_path):
    true, options = make(kind, tmp_path / "set")
    before = snapshot(tmp_path / "set")
    lines = folder(out=tmp_path / "out", **options)
    assert snapshot(tmp_path / "set") == before
    found = classes_of(tmp_path / "out", "train") | classes_of(tmp_path / "out", "val")
    assert found.keys() == true.keys()
    wrong = sum((found[name] != ids).sum() for name, ids in true.items())
    # Of polygons, a pixel at a slanted side may differ by half a pixel's place.
    assert wrong <= (
        0.001 * sum(ids.size for ids in true.values()) if kind in ("labelme", "coco", "cvat") else 0
    )
    read = read_dataset_file(tmp_path / "out")
    assert read.names == (("ground", "thing") if kind == "binary" else own_sets.NAMES)
    assert (tmp_path / "out/masks").exists() == (kind not in IN_PLACE)
    if kind in ("colour", "voc"):
        assert read.colours == own_sets.COLOURS
        with Image.open(read.pairs("val")[0][1]) as mask:  # a viewer shows the colours
            assert tuple(mask.getpalette()[3:6]) == own_sets.COLOURS[1]
    # The printed shares are those of the drawn classes.
    train, val = lines[-3:-1]
    assert (train.images, val.images) == (8, 2)
    pixels = np.bincount(np.concatenate([ids.ravel() for ids in true.values()]), minlength=256)
    assert np.allclose(np.add(train.pixels, val.pixels), pixels[: len(read.names)], atol=wrong)
    assert "tools/train.py" in lines[-1] and "--data" in lines[-1]


def test_the_files_of_binary_masks_say_it_in_the_mapping(tmp_path):
    _, options = make("binary", tmp_path / "set", 4)
    folder(out=tmp_path / "out", **options)
    assert "mapping: {0: 0, 255: 1}\nignore: []\n" in (tmp_path / "out/dataset.yaml").read_text()


def test_again_changes_nothing_and_more_images_are_added(tmp_path):
    _, options = make("colour", tmp_path / "set", 6)
    folder(out=tmp_path / "out", **options)
    before = snapshot(tmp_path / "out")
    folder(out=tmp_path / "out", **options)
    record = tmp_path / "out/prepared.json"  # alone is written anew, with the same content
    assert {**snapshot(tmp_path / "out"), record: before[record]} == before
    # A mask is mended, a pair comes and one goes: the same command brings the set up to date.
    true = own_sets.colour_set(tmp_path / "set", 8)
    (tmp_path / "set/images/day/000.png").unlink()
    (tmp_path / "set/masks/day/000_mask.png").unlink()
    mended = tmp_path / "set/masks/night/001_mask.png"
    own_sets.save(np.full_like(np.array(Image.open(mended)), own_sets.COLOURS[2]), mended)
    folder(out=tmp_path / "out", **options)
    found = classes_of(tmp_path / "out", "train") | classes_of(tmp_path / "out", "val")
    assert found.keys() == true.keys() - {"day/000"}
    assert (found["night/001"] == 2).all()
    assert not (tmp_path / "out/masks/day/000.png").exists()


def test_other_arguments_need_another_place(ids):
    folder(**ids)
    before = snapshot(ids["out"])
    with pytest.raises(UserError, match=r"prepared with other arguments \(val 0.2, now 0.5\); name another"):
        folder(**ids, val=0.5)
    assert snapshot(ids["out"]) == before


@pytest.mark.parametrize("name", ["dataset.yaml", "train.txt", "prepared.json"])
def test_a_file_of_the_users_is_never_replaced(ids, name):
    ids["out"].mkdir()
    (ids["out"] / name).write_text("mine")
    (ids["out"] / "notes.txt").write_text("mine too")
    with pytest.raises(UserError, match=f"{name} is (there|no record)"):
        folder(**ids)
    assert {path.name: path.read_text() for path in ids["out"].iterdir()} == {
        name: "mine",
        "notes.txt": "mine too",
    }


def test_a_changed_file_is_left_alone(ids):
    folder(**ids)
    (ids["out"] / "dataset.yaml").write_text("changed by hand")
    with pytest.raises(UserError, match="was changed since"):
        folder(**ids)
    assert (ids["out"] / "dataset.yaml").read_text() == "changed by hand"


@pytest.mark.parametrize(
    ("kind", "room", "file"),
    [
        ("colour", 0, "masks/.*png"),
        ("ids", 0, "train.txt"),
        ("ids", 100, "dataset.yaml"),
        ("ids", 400, "prepared.json"),
    ],
)
def test_a_full_disk_leaves_nothing(tmp_path, kind, room, file):
    _, options = make(kind, tmp_path / "set", 4)
    with full_disk(room), pytest.raises(UserError, match=f"cannot write .*{file}: File too large"):
        folder(out=tmp_path / "a/b/out", **options)
    assert not (tmp_path / "a").exists()


def test_no_permission(ids, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != ids["out"])  # root may write anywhere
    with pytest.raises(UserError, match="cannot write to the set's folder .*; name another --out"):
        folder(**ids)
    assert not ids["out"].exists()


def test_what_the_check_refuses_leaves_nothing(ids):
    image = ids["images"] / "000.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    with pytest.raises(UserError, match="cannot be decoded"):
        folder(**ids)
    assert not ids["out"].exists()


def test_a_set_that_lies_below_its_file_can_be_moved(ids, tmp_path):
    folder(**ids | dict(out=tmp_path / "set"))
    (tmp_path / "set").rename(tmp_path / "moved")
    for image, mask in read_dataset_file(tmp_path / "moved").pairs("train"):
        assert Path(image).is_file() and Path(mask).is_file()


def test_training_and_validation_from_places_of_their_own(tmp_path):
    for split, count in (("train", 4), ("val", 2)):
        own_sets.ids_set(tmp_path / "set" / split, count)
    place = tmp_path / "set"
    folder(
        place / "train/images",
        place / "train/masks",
        tmp_path / "out",
        val_images=place / "val/images",
        val_masks=place / "val/masks",
        progress=False,
    )
    read = read_dataset_file(tmp_path / "out")
    assert [len(read.pairs(split)) for split in ("train", "val")] == [4, 2]
    assert read.pairs("val")[0] == (str(place / "val/images/000.jpg"), str(place / "val/masks/000.png"))


def test_a_third_split_and_a_class_that_one_image_shows(ids):
    mask = ids["masks"] / "003.png"
    own_sets.save(np.where(np.array(Image.open(mask)) == 2, 3, np.array(Image.open(mask))), mask)
    said = folder(**ids | dict(test=0.2, classes="ground,disc,box,tree"))
    assert "split: 4 train, 1 val, 1 test, by content" in said
    assert [line for line in said if "does not show" in str(line)] == [
        f"{split} does not show tree: too few images or groups do" for split in ("val", "test")
    ]
    listed = [
        set((ids["out"] / f"{split}.txt").read_text().split("\n")) for split in ("train", "val", "test")
    ]
    assert "003.jpg\t003.png" in listed[0] and len(set.union(*listed) - {""}) == 6
    assert "test: test.txt" in (ids["out"] / "dataset.yaml").read_text()


def test_a_test_split_beside_validation_from_a_place_of_its_own(ids):
    (ids["images"] / "val").mkdir()
    (ids["masks"] / "val").mkdir()
    (ids["images"] / "005.jpg").rename(ids["images"] / "val" / "005.jpg")
    (ids["masks"] / "005.png").rename(ids["masks"] / "val" / "005.png")
    said = folder(**ids, test=0.4, val_images=ids["images"] / "val")
    assert "split: 3 train, 1 val, 2 test, by content, val as told" in said
    assert (ids["out"] / "val.txt").read_text() == "val/005.jpg\tval/005.png\n"


def test_validation_below_the_images(ids):
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (ids[kind] / "holdout").mkdir()
        (ids[kind] / f"003.{suffix}").rename(ids[kind] / f"holdout/003.{suffix}")
    folder(**ids, val_images=ids["images"] / "holdout")
    assert list(classes_of(ids["out"], "val")) == ["holdout/003"]
    assert len(classes_of(ids["out"], "train")) == 5


def redraw(**values):
    """A change of the first mask: everything becomes one value, of a type or with an alpha channel."""

    def change(ids):
        own_sets.save(
            np.full((96, 128), values["value"], values.get("type", np.uint8)), ids["masks"] / "000.png"
        )

    return change


def without(pattern):
    return lambda ids: [path.unlink() for path in ids["out"].parent.glob(pattern)]


def as_jpeg(ids):
    for path in list(ids["masks"].iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()


def with_alpha(ids):
    own_sets.save(np.full((96, 128, 4), 1, np.uint8), ids["masks"] / "000.png")


def no_picture(ids):
    (ids["images"] / "000.jpg").write_bytes(b"no picture")


def turned(ids):
    own_sets.save(np.zeros((128, 96), np.uint8), ids["masks"] / "000.png")


def smaller(ids):
    own_sets.save(np.zeros((50, 60), np.uint8), ids["masks"] / "000.png")


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (without("set/masks/000.png"), {}, "1 image has no label: .*000.jpg. Add .*--allow-unpaired"),
        (without("set/images/000.jpg"), {}, "1 label has no image: .*000.png"),
        (without("set/images/*"), {}, "holds no image .*it is empty"),
        (without("set/*/00[1-9].*"), {}, "1 image is all there is, which cannot be split"),
        (no_picture, {}, "1 image cannot be read: .*000.jpg; copy"),
        (turned, {}, "000.png has 128x96, but .*96x128.*EXIF orientation: turn the pixels"),
        (smaller, {}, "000.png has 50x60, but .*000.jpg 96x128"),
        (redraw(value=7), {}, r"no class: 7 \(12288 pixels in 1 file, such as .*000.png\).*--map 7:2 or"),
        (redraw(value=1000, type=np.uint16), {}, "no class: 1000 .*--map 1000:ignore"),
        (with_alpha, {}, r"000.png is or holds see-through pixels \(alpha\)"),
        (as_jpeg, {}, r"JPEG, whose compression changes ids .*export the masks as PNG \(and 5 more\)"),
        (None, dict(classes="ground,disc"), r"no class: 2 \(.* in 6 files"),
        (None, dict(val=0), "--val 0 is no share between 0 and 1"),
        (None, dict(val=1), "--val 1 is no share"),
        (None, dict(val=2), "--val 2 is no share"),
        (None, dict(test=1.5), "--test 1.5 is no share"),
        (None, dict(val=0.6, test=0.4), "--val 0.6 and --test 0.4 leave no images to train on"),
        (
            without("set/*/00[2-9].*"),
            dict(test=0.2),
            "2 images are of 2 groups, .*into train and val and test",
        ),
        (None, dict(remap=["255"]), "--map '255' is not ID:CLASS"),
        (None, dict(remap=["255:tree"]), "'tree' is no class; the classes are 0 ground, 1 disc, 2 box"),
        (None, dict(group="("), r"--group '\(' is no regular expression"),
        (None, dict(val_images="/nowhere"), "--val-images /nowhere is no folder"),
        (None, dict(val_masks="/nowhere"), "--val-masks is for --val-images"),
    ],
)
def test_one_message_each_and_nothing_is_left(ids, change, options, said):
    if change:
        change(ids)
    with pytest.raises(UserError, match=said):
        folder(**ids | options)
    assert not ids["out"].exists()


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_output_among_the_users_files(ids, kind):
    with pytest.raises(UserError, match=f"lies in .*{kind}, where the next run"):
        folder(**ids | dict(out=ids[kind] / "mine"))
    assert not (ids[kind] / "mine").exists()


def test_0_and_255_alone_are_asked_about(tmp_path):
    _, options = make("binary", tmp_path / "set", 4)
    with pytest.raises(UserError, match="hold 0 and 255 alone, .* give --map 255:1"):
        folder(out=tmp_path / "out", **options | dict(remap=[]))


def test_colours_that_the_file_lacks(tmp_path):
    _, options = make("colour", tmp_path / "set", 4)
    with pytest.raises(
        UserError, match=r"hold 3 colours: 90 90 90 \(\d+ pixels in 4 files, such as .*--colours"
    ):
        folder(out=tmp_path / "out", **options | dict(colours=None))
    options["colours"].write_text("ground,90,90,90\ndisc,220,20,60\n")
    with pytest.raises(UserError, match=r"1 colour of the masks is not in --colours: 0 0 142 \(\d+ pixels"):
        folder(out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_16_bits_and_grey_colours_are_written_with_8(ids):
    own_sets.save(np.full((96, 128), 1, np.uint16), ids["masks"] / "000.png")
    own_sets.save(np.full((96, 128, 3), 2, np.uint8), ids["masks"] / "001.png")
    own_sets.save(np.full((96, 128), 40_000, np.uint16), ids["masks"] / "002.png")
    folder(**ids, remap=["40000:box"])
    found = classes_of(ids["out"], "train") | classes_of(ids["out"], "val")
    assert [np.unique(found[name]).tolist() for name in ("000", "001", "002")] == [[1], [2], [2]]


def test_an_id_of_map_that_no_mask_holds_is_said(ids):
    lines = folder(**ids, remap=["254:ignore", "2:box"])
    assert "ids of --map that no mask holds: 254" in lines


def test_left_out_and_said(ids):
    (ids["masks"] / "000.png").unlink()
    lines = folder(**ids, allow_unpaired=True)
    assert any("left out: 1 image has no label" in str(line) for line in lines)
    assert len(classes_of(ids["out"], "train")) + len(classes_of(ids["out"], "val")) == 5


def test_pixels_outside_of_all_polygons(tmp_path):
    true, options = make("labelme", tmp_path / "set", 4)
    lines = folder(out=tmp_path / "out", **options | dict(classes=None, outside="ignore"))
    assert any("are of no class (ignored)" in str(line) for line in lines)
    read = read_dataset_file(tmp_path / "out")
    assert read.names == ("box", "disc")
    found = classes_of(tmp_path / "out", "train")
    for name, classes in found.items():
        assert ((classes == 255) == (true[name] == 0)).mean() > 0.999
    with pytest.raises(UserError, match="are of the class 'sky', which is none of "):
        folder(out=tmp_path / "other", **options | dict(outside="sky"))


def test_a_record_says_what_it_was_made_from(ids):
    folder(**ids)
    content = json.loads((ids["out"] / "prepared.json").read_text())
    assert content["arguments"]["classes"] == "ground,disc,box"
    assert sorted(content["files"]) == ["dataset.yaml", "train.txt", "val.txt"]
