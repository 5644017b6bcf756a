"""Ultralytics' YAML of a semantic set is read as it is; what danseg cannot read is refused by name."""

import pytest

from danseg.dataset_file import read_dataset_file
from danseg.errors import UserError

# The keys of the published file for Cityscapes.
TEXT = """
path: set
train: images/train
val: [images/val, more/images/val]
test: test.txt
masks_dir: masks
nc: 2
names:
  0: road
  1: traffic light
label_mapping: {-1: ignore_label, 0: ignore_label, 7: 0, 19: 1}
download: |
  print("never run")
"""


@pytest.fixture
def files(tmp_path):
    for name in (
        "images/train/a.jpg",
        "images/train/sub/b.PNG",
        "images/train/notes.txt",
        "masks/train/a.png",
        "masks/train/sub/b.tif",
        "images/val/c.jpg",
        "more/images/val/d.jpg",
        "images/test/e.jpg",
    ):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "set/test.txt").write_text("./images/test/e.jpg\n")
    (tmp_path / "data.yaml").write_text(TEXT)
    return tmp_path


def test_reading(files):
    read = read_dataset_file(files / "data.yaml")
    assert read == read_dataset_file(files)  # the file is found in its folder too
    assert read.names == ("road", "traffic light")
    # Ids without a mapping stay, and 255 is ignored.
    assert read.label_ids == {0: 255, 1: 1, 7: 0, 19: 1, 255: 255}
    root = files / "set"
    assert read.pairs("train") == [
        (str(root / "images/train/a.jpg"), str(root / "masks/train/a.png")),
        (str(root / "images/train/sub/b.PNG"), str(root / "masks/train/sub/b.tif")),
    ]
    assert read.pairs("val") == [
        (str(root / "images/val/c.jpg"), str(root / "masks/val/c.png")),
        (str(root / "more/images/val/d.jpg"), str(root / "more/masks/val/d.png")),
    ]
    assert read.pairs("test") == [(str(root / "images/test/e.jpg"), str(root / "masks/test/e.png"))]


def test_without_optional_keys(files):
    (files / "set/data.yaml").write_text("train: images/train\nmasks_dir: masks\nnames: [background, b]\n")
    read = read_dataset_file(files / "set")
    assert read.label_ids == {0: 0, 1: 1, 255: 255}
    assert read.colours == ((0, 0, 0), (128, 0, 0))
    assert len(read.pairs("train")) == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("masks_dir: masks", "", "no masks_dir, .*polygons in .txt"),
        ("masks_dir: masks", "masks_dir: 3", "masks_dir is 3"),
        ("masks_dir", "kpt_shape: [17, 3]\nmasks_dir", "unknown key 'kpt_shape'"),
        ("nc: 2", "nc: 3", "nc is 3, but names is"),
        ("nc: 2", "channels: 4", "channels is 4"),
        ("path: set", "path: nowhere", "path is 'nowhere', but there is no folder .*nowhere"),
        ("path: set", "path: 3", "path is 3"),
        ("7: 0", "7: 2", "label_mapping gives id 7 the class 2; classes are 0 to 1"),
        ("7: 0", "300: 0", "label_mapping has the id 300"),
        ("7: 0, 19: 1", "1: 0", "label_mapping gives no id to 'road|'traffic light'"),
        ("train: images/train", "train: 5", "train is 5"),
        ("1: traffic light", "1: off", "name of class 1 is False"),
    ],
)
def test_one_message_each(files, old, new, said):
    assert old in TEXT
    (files / "data.yaml").write_text(TEXT.replace(old, new))
    with pytest.raises(UserError, match=said) as caught:
        read_dataset_file(files)
    assert str(files / "data.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("masks/val", "which holds no image"),
        ("gone", "gone, which cannot be read: it does not exist"),
        ("pictures", "in no folder called images"),
    ],
)
def test_places_without_pairs(files, place, said):
    for name in ("masks/val/x.txt", "pictures/a.jpg"):
        (files / "set" / name).parent.mkdir(exist_ok=True)
        (files / "set" / name).touch()
    (files / "data.yaml").write_text(TEXT.replace("train: images/train", f"train: {place}"))
    with pytest.raises(UserError, match=said):
        read_dataset_file(files).pairs("train")


def test_the_last_folder_called_images_is_the_one_that_masks_replace(tmp_path):
    (tmp_path / "images/set/images/a").mkdir(parents=True)
    (tmp_path / "images/set/images/a/x.jpg").touch()
    (tmp_path / "images/set/data.yaml").write_text("train: images/a\nmasks_dir: masks\nnames: [a]\n")
    ((_, mask),) = read_dataset_file(tmp_path / "images/set").pairs("train")
    assert mask == str(tmp_path / "images/set/masks/a/x.png")
