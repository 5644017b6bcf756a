"""Predictions of a data set of one's own, scored by its dataset.yaml."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danseg.errors import UserError
from danseg.evaluation.folders import evaluate_folders

IDS = {0: 0, 10: 1, 11: 1, 255: 255}  # id in the masks -> class
SAYS = """
danseg: 1
images: pictures
masks: labels
names: [land, water]
mapping: {0: 0, 10: 1, 11: 1}
ignore: [255]
train: train.txt
val: val.txt
"""
NAMES = ("day/1", "night/1", "night/2")
rng = np.random.default_rng(0)
MASKS = {name: rng.choice([*IDS], (7, 9)).astype(np.uint8) for name in NAMES}
PREDICTED = {name: rng.integers(0, 2, (7, 9), np.uint8) for name in NAMES}


def save(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


@pytest.fixture
def root(tmp_path) -> Path:
    for name, ids in MASKS.items():
        save(tmp_path / f"labels/{name}_mask.png", ids)
    save(tmp_path / "labels/unused_mask.png", MASKS["day/1"])  # of train
    (tmp_path / "train.txt").write_text("unused.jpg\tunused_mask.png\n")
    (tmp_path / "val.txt").write_text("".join(f"{name}.jpg\t{name}_mask.png\n" for name in NAMES))
    (tmp_path / "dataset.yaml").write_text(SAYS)
    return tmp_path


def scored(root: Path, **more):
    return evaluate_folders(root / "out", root / "labels", str(root), workers=1, **more)


def iou() -> list[float]:
    """By hand, over all pixels with a class."""
    truth = np.concatenate([np.vectorize(IDS.get)(ids).ravel() for ids in MASKS.values()])
    guess = np.concatenate([ids.ravel() for ids in PREDICTED.values()])[truth != 255]
    truth = truth[truth != 255]
    return [
        float(((truth == c) & (guess == c)).sum() / ((truth == c) | (guess == c)).sum()) for c in range(2)
    ]


@pytest.mark.parametrize(
    "named",
    [
        {name: f"{name}.png" for name in NAMES},
        {name: f"{name}_labels.png" for name in NAMES},
        {"day/1": "day/1.png", "night/1": "night/1_labels.png", "night/2": "2.png"},
    ],
    ids=["as the image", "as tools/predict.py names it", "in other folders where that is clear"],
)
def test_predictions_are_compared_with_the_masks_of_val(root, named):
    for name, file in named.items():
        save(root / "out" / file, PREDICTED[name])
    save(root / "out/night/2_overlay.png", np.zeros((7, 9, 3), np.uint8))
    result = scored(root)
    assert result.scores.iou.tolist() == iou() and result.scores.classes == ("land", "water")
    assert [path.name for path in result.unused] == ["2_overlay.png"]


def test_predictions_may_hold_the_ids_of_the_masks(root):
    for name, ids in PREDICTED.items():
        save(root / f"out/{name}.png", np.array([0, 11], np.uint8)[ids])
    with pytest.raises(UserError, match="these may be labelIds: then say so with --pred-ids labelIds"):
        scored(root)
    assert scored(root, prediction_ids="labelIds").scores.iou.tolist() == iou()
    assert scored(root, prediction_ids="labelIds", classes=["water"]).scores.classes == ("water",)


def test_what_does_not_fit_is_refused(root):
    for name in ("day/1", "2"):
        save(root / f"out/{name}.png", PREDICTED["day/1"])
    with pytest.raises(UserError, match=r"night/1_mask\.png, which needs night/1\.png"):
        scored(root)
    with pytest.raises(UserError, match="has no split 'vall', only train, val; did you mean 'val'"):
        scored(root, split="vall")
    with pytest.raises(UserError, match=r"no mask of val of .* lies in .*out; they lie in .*labels"):
        evaluate_folders(root / "out", root / "out", str(root))
    with pytest.raises(
        UserError, match="unknown data set 'camvdi'; did you mean 'camvid'.* or name the folder"
    ):
        evaluate_folders(root / "out", root / "labels", "camvdi")
    with pytest.raises(UserError, match="--split is for a dataset.yaml and for lists"):
        evaluate_folders(root / "out", root / "labels", "camvid", split="val")
    (root / "val.txt").write_text("a.jpg\tday/1_mask.png\na.png\tnight/1_mask.png\n")
    with pytest.raises(UserError, match="two images of val are named a"):
        scored(root)


def test_of_voc_the_frames_of_one_list_are_scored(tmp_path):
    label = rng.choice([*range(21), 255], (7, 9)).astype(np.uint8)
    for name in ("2007_000001", "2007_000002"):
        save(tmp_path / f"SegmentationClass/{name}.png", label)
    for split, name in (("train", "2007_000001"), ("val", "2007_000002")):
        (tmp_path / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text(f"{name}\n")
    save(tmp_path / "out/2007_000002.png", np.where(label == 255, 0, label).astype(np.uint8))
    folders = tmp_path / "out", tmp_path / "SegmentationClass"
    result = evaluate_folders(*folders, "voc2012", workers=1)
    assert len(result.pairs) == 1 and result.scores.mean_iou == 1
    with pytest.raises(UserError, match="no prediction for 1 of the 1 label maps"):
        evaluate_folders(*folders, "voc2012", split="train")
    with pytest.raises(UserError, match="voc2012 has no split 'test', only train, val"):
        evaluate_folders(*folders, "voc2012", split="test")
    (tmp_path / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(UserError, match="val.txt, which cannot be read: it does not exist; give the folder"):
        evaluate_folders(*folders, "voc2012")
