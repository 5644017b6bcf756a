"""mmseg's loading steps with danseg's readers in their place: the same numbers, and no file that changed."""

import copy
import os

import cv2
import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

from danseg.datasets.whole_files import WholeLabel, WholePicture, read_whole_files
from danseg.errors import UserError

SIZE = (6, 8)
STEPS = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]


def picture(seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number, suffix in enumerate((".png", ".jpg", ".bmp")):
        Image.fromarray(picture(number)).save(tmp_path / f"images/{number}{suffix}")
    for number in range(3):
        ids = np.random.default_rng(number).integers(0, 4, SIZE, dtype=np.uint8)
        image = Image.fromarray(ids)
        if number == 1:
            image = image.convert("P")  # a palette of greys
        image.save(tmp_path / f"labels/{number}.png")
    return tmp_path


def built(folder, suffix=".png", steps=STEPS, whole=True, **arguments):
    init_default_scope("mmseg")
    dataset = DATASETS.build(
        dict(
            type="BaseSegDataset",
            data_root=str(folder),
            data_prefix=dict(img_path="images", seg_map_path="labels"),
            img_suffix=suffix,
            serialize_data=False,  # which collects garbage, and takes half a second
            pipeline=copy.deepcopy(steps),  # mmcv builds nested steps in their place
            **{"metainfo": dict(classes=("a", "b", "c", "d")), **arguments},
        )
    )
    if whole:
        read_whole_files(dataset)
    return dataset


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "gt_sem_seg"):
        return same(one.gt_sem_seg.data, other.gt_sem_seg.data) and one.metainfo == other.metainfo
    return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())


COLOURS = ("color", "grayscale", "unchanged", "color_ignore_orientation")
PIPELINES = {
    **{f"{kind}, float {f}": [dict(STEPS[0], color_type=kind, to_float32=f), *STEPS[1:]] for kind in COLOURS
       for f in (False, True)},
    "resized between": [STEPS[0], dict(type="Resize", scale=(16, 12)), *STEPS[1:]],
    "tta": [
        STEPS[0],
        dict(
            type="TestTimeAug",
            transforms=[[dict(type="RandomFlip", prob=p) for p in (0.0, 1.0)], [STEPS[1]], [STEPS[2]]],
        ),
    ],
}  # fmt: skip


@pytest.mark.parametrize("steps", PIPELINES)
@pytest.mark.parametrize(
    "arguments", [{}, dict(reduce_zero_label=True), dict(metainfo=dict(classes=("c", "a")))], ids=str
)
def test_the_numbers_are_mmsegs(folder, steps, arguments, monkeypatch):
    if arguments.get("metainfo"):
        monkeypatch.setitem(DATASETS.get("BaseSegDataset").METAINFO, "classes", ("a", "b", "c", "d"))
    for suffix in (".png", ".jpg", ".bmp"):
        ours = built(folder, suffix, PIPELINES[steps], **arguments)
        theirs = built(folder, suffix, PIPELINES[steps], whole=False, **arguments)
        assert repr(ours.pipeline) == repr(theirs.pipeline)
        assert len(ours) == 1 and same(ours[0], theirs[0])
    kinds = [type(step) for step in ours.pipeline.transforms]
    assert kinds[0] is WholePicture and (steps == "tta" or WholeLabel in kinds)


def test_other_steps_and_data_sets_stay(folder):
    @TRANSFORMS.register_module(force=True)
    class OwnLabels(TRANSFORMS.get("LoadAnnotations")):
        def _load_seg_map(self, results):
            results["gt_seg_map"] = np.zeros(SIZE, np.uint8)

    steps = [dict(type="LoadImageFromNDArray"), dict(type="OwnLabels")]
    steps.append(dict(STEPS[1], imdecode_backend="cv2"))
    dataset = built(folder, steps=steps)
    names = [type(step).__name__ for step in dataset.pipeline.transforms]
    assert names == ["LoadImageFromNDArray", "OwnLabels", "LoadAnnotations"]
    read_whole_files([1, 2])  # without a pipeline


def test_repeated_data_sets_are_reached(folder):
    for dataset in (
        RepeatDataset(built(folder, whole=False), 2),
        ConcatDataset([built(folder, whole=False)]),
    ):
        read_whole_files(dataset)
        inner = dataset.datasets[0] if hasattr(dataset, "datasets") else dataset.dataset
        assert type(inner.pipeline.transforms[0]) is WholePicture


def fifo(path, _):
    path.unlink()
    os.mkfifo(path)


CHANGES = {
    "cut": lambda path, folder: path.write_bytes(path.read_bytes()[:60]),
    "empty": lambda path, folder: path.write_bytes(b""),
    "gone": lambda path, folder: path.unlink(),
    "FIFO": fifo,
    "grown": lambda path, folder: Image.fromarray(picture(size=(12, 16))[..., 0] % 4).save(path),
    "no picture": lambda path, folder: path.write_text("hello"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_file_that_changed_is_an_error(folder, part, change):
    dataset = built(folder)
    assert dataset[0]
    CHANGES[change](folder / part / "0.png", folder)
    with pytest.raises((ValueError, OSError, UserError), match=r"0\.png|put the right label beside it"):
        dataset[0]


def test_a_picture_in_the_place_of_a_label_is_an_error(folder):
    dataset = built(folder)
    os.replace(folder / "images/0.png", folder / "labels/0.png")
    Image.fromarray(picture()).save(folder / "images/0.png")
    with pytest.raises(UserError, match=r"0\.png is no label map: RGB colours"):
        dataset[0]
    cv2.imwrite(str(folder / "labels/0.png"), np.zeros(SIZE, np.uint16))
    with pytest.raises(UserError, match="16 bits a sample"):
        dataset[0]
