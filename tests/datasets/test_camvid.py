"""CamVidDataset: classes, void, suffixes, frame lists."""

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

from danseg.datasets import CamVidDataset

LOAD = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]


@pytest.fixture(autouse=True)
def mmsegs_scope():
    """Use mmseg's default scope, as a run does, so that its transforms are found by name."""
    init_default_scope("mmseg")


@pytest.fixture
def root(tmp_path):
    """Two training frames, one PNG and one JPEG, whose labels hold every value from 0 to 11."""
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    label = np.arange(12, dtype=np.uint8).reshape(3, 4).repeat(2, 0)
    for name in ("b.png", "a.jpg"):
        Image.new("RGB", (4, 6), (9, 99, 199)).save(tmp_path / "train" / name)
        Image.fromarray(label).save(tmp_path / "trainannot" / f"{name[0]}.png")
    return tmp_path


def build(root, **kwargs) -> CamVidDataset:
    return DATASETS.build(dict(type="CamVidDataset", data_root=str(root), pipeline=LOAD, **kwargs))


def test_either_suffix_in_order_of_name(root):
    dataset = build(root)
    names = [dataset.get_data_info(i)["img_path"].rsplit("/", 1)[1] for i in range(len(dataset))]
    assert names == ["a.jpg", "b.png"]


def test_void_is_ignored_and_classes_stay(root):
    label = build(root)[0]["gt_seg_map"]
    assert label[0].tolist() == [0, 1, 2, 3]
    assert label[-1].tolist() == [8, 9, 10, 255]


def test_void_follows_the_ignore_index(root):
    assert build(root, ignore_index=100)[0]["gt_seg_map"][-1, -1] == 100


def test_a_chosen_part_of_the_classes(root):
    dataset = build(root, metainfo=dict(classes=("road", "sky")))
    assert dataset[0]["gt_seg_map"][0].tolist() == [1, 255, 255, 0]
    assert dataset[0]["gt_seg_map"][-1].tolist() == [255] * 4
    assert len(dataset.metainfo["palette"]) == 2


def test_classes_and_colours():
    meta = CamVidDataset.METAINFO
    assert meta["classes"][0] == "sky" and meta["classes"][3] == "road" and meta["classes"][10] == "bicyclist"
    assert len(meta["classes"]) == len(meta["palette"]) == len({tuple(c) for c in meta["palette"]}) == 11


def test_frames_from_a_list(root):
    (root / "frames.txt").write_text("b\n\n")
    dataset = build(root, ann_file="frames.txt")
    assert [info["img_path"] for info in map(dataset.get_data_info, range(len(dataset)))] == [
        str(root / "train" / "b.png")
    ]


def test_a_listed_frame_that_is_missing_is_named(root):
    (root / "frames.txt").write_text("b\nseq_0042\n")
    with pytest.raises(FileNotFoundError, match="seq_0042"):
        build(root, ann_file="frames.txt")


def test_two_images_of_one_name_are_refused(root):
    Image.new("RGB", (4, 6)).save(root / "train" / "a.png")
    with pytest.raises(ValueError, match="a.png"):
        build(root)


def test_image_suffix_is_not_an_argument(root):
    with pytest.raises(ValueError, match="img_suffix"):
        build(root, img_suffix=".png")


def test_lazy(root):
    dataset = build(root, lazy_init=True)
    assert not dataset._fully_initialized
    assert len(dataset) == 2


def test_images_alone(root):
    dataset = DATASETS.build(
        dict(type="CamVidDataset", data_root=str(root), data_prefix=dict(img_path="train"), pipeline=LOAD[:1])
    )
    assert "seg_map_path" not in dataset.get_data_info(0)
    assert dataset[0]["img"].shape == (6, 4, 3)
