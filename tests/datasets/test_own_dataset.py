"""OwnDataset gives what dataset.yaml says: pairs, names, colours and the class of every id."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

from danseg.datasets.check import check_dataset
from danseg.datasets.own_dataset import OwnDataset
from danseg.errors import UserError

SIZE = (6, 8)
LOADING = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
CROP = dict(
    type="LoadTrainingCrop", scale=None, crop_size=SIZE, ratio_range=(1, 1), cat_max_ratio=1, flip_prob=0
)
SAYS = """
danseg: 1
images: pictures
masks: labels
names: [land, water, ice]
colours: [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
mapping: {0: 0, 10: 1, 11: 1, 200: 2}
ignore: [255, 2]
train: train.txt
val: val.txt
"""
CLASS_OF = {0: 0, 10: 1, 11: 1, 200: 2, 255: 255, 2: 255}  # as the text above has it
IDS = np.resize(np.array([*CLASS_OF], np.uint8), SIZE)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    init_default_scope("mmseg")


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("a/1", "b/1", "2"):
        save(tmp_path / f"pictures/{name}.jpg", np.zeros((*SIZE, 3), np.uint8))
        save(tmp_path / f"labels/{name}_mask.png", IDS)
    (tmp_path / "train.txt").write_text("b/1.jpg\tb/1_mask.png\na/1.jpg\ta/1_mask.png\n")
    (tmp_path / "val.txt").write_text("2.jpg\t2_mask.png\n")
    (tmp_path / "dataset.yaml").write_text(SAYS)
    return tmp_path


def config(root: Path, split: str = "train", **more) -> dict:
    return dict(type="OwnDataset", data_root=str(root), split=split, **more)


def message(root: Path, split: str = "train", classes: int = 3) -> str:
    with pytest.raises(UserError) as caught:
        check_dataset(config(root, split), classes, split_name=split, progress=False)
    return str(caught.value)


@pytest.mark.parametrize("place", ["", "dataset.yaml"], ids=["folder", "file"])
def test_pairs_names_and_colours(root, place):
    dataset = DATASETS.build(config(root / place))
    pairs = [
        (dataset.get_data_info(one)["img_path"], dataset.get_data_info(one)["seg_map_path"]) for one in (0, 1)
    ]
    assert pairs == [
        (str(root / f"pictures/{name}/1.jpg"), str(root / f"labels/{name}/1_mask.png")) for name in "ba"
    ]
    assert len(dataset) == 2
    assert dataset.metainfo["classes"] == ["land", "water", "ice"] or dataset.metainfo["classes"] == (
        "land",
        "water",
        "ice",
    )
    assert [list(one) for one in dataset.metainfo["palette"]] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize("steps", [LOADING[:2], [CROP]], ids=["mmseg's", "danseg's"])
def test_every_loader_gives_the_classes(root, steps):
    info = DATASETS.build(config(root)).get_data_info(0)
    for step in steps:
        info = TRANSFORMS.build(step)(info)
    np.testing.assert_array_equal(info["gt_seg_map"], np.vectorize(CLASS_OF.get)(IDS))


def test_the_check_counts_the_classes(root):
    report = check_dataset(config(root), 3, split_name="train", progress=False)
    counts = [
        2 * int(sum((IDS == one).sum() for one, number in CLASS_OF.items() if number == c)) for c in range(3)
    ]
    assert report.pixels == counts and report.images == 2
    assert report.ignored == 2 * int(np.isin(IDS, (255, 2)).sum())


def test_a_mask_of_0_and_255_needs_no_more(root):
    (root / "dataset.yaml").write_text(
        "danseg: 1\nimages: pictures\nmasks: labels\nnames: [no, yes]\nmapping: {0: 0, 255: 1}\n"
        "train: train.txt\n".replace("[no, yes]", "['no', 'yes']")
    )
    for path in root.glob("labels/**/*.png"):
        save(path, np.resize(np.array([0, 255], np.uint8), SIZE))
    report = check_dataset(config(root), 2, split_name="train", progress=False)
    assert report.pixels == [48, 48] and report.ignored == 0
    sample = DATASETS.build(config(root, pipeline=LOADING))[0]
    assert sample["data_samples"].gt_sem_seg.data.unique().tolist() == [0, 1]


@pytest.mark.parametrize("wrong", [1, 37])
def test_an_id_that_is_not_listed_is_refused_with_the_fix(root, wrong):
    save(root / "labels/a/1_mask.png", np.full(SIZE, wrong, np.uint8))
    said = message(root)
    assert f"a/1_mask.png: {wrong} (48 pixels)" in said
    assert f"{root / 'dataset.yaml'} says which ids the masks hold" in said and "label_ids" not in said


def test_255_is_refused_where_the_file_does_not_ignore_it(root):
    (root / "dataset.yaml").write_text(SAYS.replace("[255, 2]", "[2]"))
    assert "1_mask.png: 255 (" in message(root)


def test_what_is_missing_is_named(root):
    (root / "labels/a/1_mask.png").unlink()
    assert f"no file {root / 'labels/a/1_mask.png'}" in message(root)
    (root / "pictures/b/1.jpg").unlink()
    assert f"{root / 'pictures/b/1.jpg'}: it does not exist" in message(root)
    (root / "val.txt").write_text("")
    assert "val.txt lists no pair" in message(root, "val")
    assert "has no split 'test', only train, val" in message(root, "test")
    (root / "labels").rename(root / "elsewhere")
    assert f"labels: {root / 'labels'} is no folder" in message(root)
    (root / "dataset.yaml").unlink()
    said = message(root)
    assert "there is no dataset.yaml in" in said and "tools/prepare_dataset.py folder" in said


def test_what_the_file_says_cannot_be_said_again(root):
    for name, value in dict(metainfo={}, label_ids=(0, 1, 2), data_prefix={}, ann_file="x").items():
        with pytest.raises(TypeError, match=name):
            OwnDataset(data_root=root, split="train", **{name: value})


def test_ultralytics_folders_are_read_as_they_are(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / f"set/images/{split}/1.jpg", np.zeros((*SIZE, 3), np.uint8))
        save(tmp_path / f"set/masks/{split}/1.png", np.resize(np.array([0, 1, 255], np.uint8), SIZE))
    (tmp_path / "their.yaml").write_text(
        f"path: {tmp_path / 'set'}\ntrain: images/train\nval: images/val\nmasks_dir: masks\n"
        "names: {0: land, 1: water}\n"
    )
    for split in ("train", "val"):
        report = check_dataset(config(tmp_path / "their.yaml", split), 2, split_name=split, progress=False)
        assert report.pixels == [16, 16] and report.ignored == 16
        assert report.files == [str(tmp_path / f"set/images/{split}/1.jpg")]
    save(tmp_path / "set/masks/val/1.png", np.full(SIZE, 9, np.uint8))
    assert "or ignore_label, in its label_mapping" in message(tmp_path / "their.yaml", "val", 2)
