"""Declared ids and chosen classes reach every loader: training, its cache, evaluation, the written files."""

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

from danseg.datasets import FolderDataset
from danseg.datasets.frame_cache import forget_caches, write_cache
from danseg.evaluation import ExactIoUMetric
from danseg.label_maps.label_png import read_label_map

CITYSCAPES = DATASETS.get("CityscapesDataset").METAINFO["classes"]
ADE20K = DATASETS.get("ADE20KDataset").METAINFO["classes"]
IDS = np.arange(256, dtype=np.uint8).reshape(16, 16)
MASK = dict(type="FolderDataset", metainfo=dict(classes=("land", "water")))


def expected(table: dict[int, int], default=255) -> np.ndarray:
    """The class of every id in a file; ``default`` for ids that no class has, None if they stay."""
    ids = np.arange(256) if default is None else np.full(256, default)
    for old, new in table.items():
        ids[old] = new
    return ids


CASES = {
    "a mask": (dict(MASK, label_ids=(0, 255)), {0: 0, 255: 1, 1: 255}, None),
    "a mask, turned": (dict(MASK, label_ids=(255, 0)), {255: 0, 0: 1, 1: 255}, None),
    "spaced ids": (dict(MASK, label_ids=(10, 20)), {10: 0, 20: 1, 0: 255, 1: 255}, None),
    "ids that change places": (dict(MASK, label_ids=(1, 0)), {1: 0, 0: 1}, None),
    "no ids": (MASK, {}, None),
    "a trimap": (dict(MASK, label_ids=(0, 255), void_ids=(127,)), {0: 0, 255: 1, 1: 255, 127: 255}, None),
    "a border": (dict(MASK, void_ids=(2,)), {2: 255}, None),
    "a part of Cityscapes": (
        dict(type="CityscapesDataset", metainfo=dict(classes=("car", "road"))),
        {**dict.fromkeys(range(19), 255), 13: 0, 0: 1},
        None,
    ),
    "Cityscapes turned round": (
        dict(type="CityscapesDataset", metainfo=dict(classes=CITYSCAPES[::-1])),
        {old: 18 - old for old in range(19)},
        None,
    ),
    "a part of ADE20K": (  # file id 0 is "other", the classes count from 1
        dict(type="ADE20KDataset", metainfo=dict(classes=(ADE20K[5], ADE20K[0]))),
        {**{old: old - 1 for old in range(151, 255)}, 6: 0, 1: 1},
        255,
    ),
    "a part of CamVid": (
        dict(type="CamVidDataset", metainfo=dict(classes=("car", "sky"))),
        {**dict.fromkeys(range(12), 255), 8: 0, 0: 1},
        None,
    ),
    "CamVid": (dict(type="CamVidDataset"), {11: 255}, None),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request, tmp_path):
    """The information that a data set gives about a label with every id, and the class of every id."""
    config, table, default = request.param
    for folder, pixels in (("images", np.zeros((16, 16, 3), np.uint8)), ("labels", IDS)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    suffixes = {} if config["type"] == "CamVidDataset" else dict(img_suffix=".png", seg_map_suffix=".png")
    init_default_scope("mmseg")
    dataset = DATASETS.build(
        dict(
            config,
            data_root=str(tmp_path),
            data_prefix=dict(img_path="images", seg_map_path="labels"),
            **suffixes,
        )
    )
    yield dataset, expected(table, default)[IDS]
    forget_caches()


def loaded(dataset, *steps: dict) -> np.ndarray:
    info = dataset.get_data_info(0)
    for step in steps:
        info = TRANSFORMS.build(step)(info)
    return info["gt_seg_map"].astype(int)


def test_every_loader_gives_the_classes(case, tmp_path):
    dataset, want = case
    crop = dict(
        type="LoadTrainingCrop",
        scale=(16, 16),
        crop_size=16,
        ratio_range=(1, 1),
        cat_max_ratio=1,
        flip_prob=0,
    )
    mmsegs = (dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"))
    np.testing.assert_array_equal(loaded(dataset, *mmsegs), want)
    np.testing.assert_array_equal(loaded(dataset, crop), want)
    write_cache(tmp_path, [str(tmp_path / "images/a.png")], [str(tmp_path / "labels/a.png")], progress=False)
    np.testing.assert_array_equal(loaded(dataset, crop), want)


def test_the_metric_scores_the_declared_ids(case):
    """A prediction of the right class at every pixel that has one scores 100, and one pixel less."""
    dataset, want = case
    count = len(dataset.metainfo["classes"])
    want = np.where((want < count) | (want == 255), want, 255)
    truth = torch.as_tensor(want)[None]
    for wrong in (0, 1):
        metric = ExactIoUMetric()
        metric.dataset_meta = dataset.metainfo
        guess = torch.where(truth == 255, 0, truth)
        if wrong:
            row, column = np.argwhere(want == 1)[0]
            guess[0, row, column] = 0
        metric.process(None, [dict(pred_sem_seg=dict(data=guess), gt_sem_seg=dict(data=truth))])
        found = metric.evaluate(1)
        assert found["aAcc"] == pytest.approx(100 - wrong * 100 / (want != 255).sum())
        assert (found["mIoU"] == 100) is (not wrong)


@pytest.mark.parametrize(
    ("kind", "classes", "output_format", "ids"),
    [
        ("CityscapesDataset", ("car", "road"), "cityscapes", [26, 7]),
        ("CityscapesDataset", CITYSCAPES[::-1], "cityscapes", [33, 32]),
        ("CityscapesDataset", ("car", "road"), "plain", [0, 1]),
        ("ADE20KDataset", (ADE20K[5], ADE20K[0]), "ade20k", [6, 1]),
        ("CamVidDataset", ("car", "sky"), "camvid", [8, 0]),
        ("CamVidDataset", None, "camvid", [0, 1]),
    ],
)
def test_written_files_hold_the_published_id_of_each_chosen_class(
    kind, classes, output_format, ids, tmp_path, caplog
):
    metainfo = {} if classes is None else dict(metainfo=dict(classes=classes))
    metric = ExactIoUMetric(output_dir=tmp_path, output_format=output_format, format_only=True)
    metric.dataset_meta = DATASETS.build(dict(type=kind, lazy_init=True, **metainfo)).metainfo
    metric.process(None, [dict(pred_sem_seg=dict(data=torch.tensor([[[0, 1]]])), img_path="a.png")])
    metric.evaluate(1)
    [path] = tmp_path.glob("*.png")
    assert read_label_map(path).tolist() == [ids]


def test_ids_in_a_concatenation_may_differ(tmp_path):
    parts = [dict(MASK, label_ids=ids, lazy_init=True) for ids in ((0, 255), (0, 1))]
    both = DATASETS.build(dict(type="ConcatDataset", datasets=parts, lazy_init=True))
    assert [part.label_map for part in both.datasets] == [{1: 255, 0: 0, 255: 1}, {0: 0, 1: 1}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(label_ids=(0,)), r"1 ids for 2 classes \(land, water\)"),
        (dict(label_ids=(0, 0)), "different ids from 0 to 255"),
        (dict(label_ids=(0, 256)), "different ids from 0 to 255"),
        (dict(label_ids=(0, "255")), "different ids from 0 to 255"),
        (dict(label_ids=(0, 255), void_ids=(0,)), "different ids from 0 to 255"),
        (dict(void_ids=(1,)), r"label_ids=\(0, 1\), void_ids=\(1,\): give different ids"),
        (dict(label_ids=(0, 255), reduce_zero_label=True), "remove reduce_zero_label"),
    ],
)
def test_ids_that_fit_nothing_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FolderDataset(metainfo=MASK["metainfo"], lazy_init=True, **arguments)
