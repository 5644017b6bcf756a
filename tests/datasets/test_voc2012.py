"""VOC2012Dataset: the published lists and ids, and a message where mmseg's class only asserts."""

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.datasets import PascalVOCDataset
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

from danseg.datasets.check import check_dataset
from danseg.errors import UserError

IDS = np.resize(np.append(np.arange(21), 255), (6, 44)).astype(np.uint8)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    init_default_scope("mmseg")
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for split, name in (("train", "2007_1"), ("val", "2007_2")):
        Image.fromarray(np.zeros((*IDS.shape, 3), np.uint8)).save(tmp_path / f"JPEGImages/{name}.jpg")
        picture = Image.fromarray(IDS, "P")
        picture.putpalette([7, 77, 177] * 256)  # colours that tell nothing
        picture.save(tmp_path / f"SegmentationClass/{name}.png")
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text(f"{name}\n")
    return tmp_path


def test_the_training_split_is_the_default_and_palettes_hold_the_ids(root):
    dataset = DATASETS.build(dict(type="VOC2012Dataset", data_root=str(root)))
    assert [info["img_path"] for info in dataset] == [str(root / "JPEGImages/2007_1.jpg")]
    assert dataset.metainfo["classes"] == PascalVOCDataset.METAINFO["classes"]
    info = dataset.get_data_info(0)
    for name in ("LoadImageFromFile", "LoadAnnotations"):
        info = TRANSFORMS.build(dict(type=name))(info)
    np.testing.assert_array_equal(info["gt_seg_map"], IDS)


@pytest.mark.parametrize("name", ["JPEGImages", "ImageSets/Segmentation/train.txt"])
def test_what_is_missing_is_said(root, name):
    (root / name).rename(root / "away")
    config = dict(type="VOC2012Dataset", data_root=str(root))
    with pytest.raises(UserError, match=f"{name} is no f"):
        check_dataset(config, 21, split_name="train", prepare_command="p", progress=False)
