"""Scores of PNG folders, compared with the official Cityscapes evaluator; every kind of bad folder."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danseg.errors import UserError
from danseg.evaluation.folders import evaluate_folders
from danseg.label_maps.cityscapes_labels import CLASS_IDS
from danseg.label_maps.id_formats import id_format, prediction_name
from danseg.label_maps.label_png import write_label_map

IMAGES = ("ulm_000000_000019", "ulm_000001_000019", "bonn_000000_000019")


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def cityscapes(tmp_path: Path) -> tuple[Path, Path]:
    """Random labelIds 0..33 on both sides: (predictions, gtFine/val), with ids that do not count."""
    rng = np.random.default_rng(0)
    predictions, labels = tmp_path / "predictions", tmp_path / "gtFine" / "val"
    for i, name in enumerate(IMAGES):
        label = rng.integers(0, 34, (30 + i, 41))
        label[label == 31] = 0  # no train is labelled, but some are predicted
        prediction = np.where(rng.random(label.shape) < 0.6, label, rng.integers(0, 34, label.shape))
        if i != 2:
            prediction[prediction == 33] = 0
        city = name.split("_")[0]
        save(labels / city / f"{name}_gtFine_labelIds.png", label)
        # Other files in gtFine must not be mistaken for label maps.
        save(labels / city / f"{name}_gtFine_color.png", np.zeros((*label.shape, 3)))
        save(predictions / prediction_name(f"{name}_leftImg8bit", "cityscapes"), prediction)
    return predictions, labels


@pytest.mark.parametrize("workers", [1, 2])
def test_cityscapes_equals_the_official_evaluator(cityscapes, official_scores, workers):
    expected = official_scores(*cityscapes)
    result = evaluate_folders(*cityscapes, "cityscapes", workers=workers)
    assert len(result.pairs) == len(IMAGES) and result.unused == ()
    checked = 0
    for name, iou in zip(result.scores.classes, result.scores.iou, strict=True):
        assert iou == pytest.approx(expected["classScores"][name], abs=1e-12, nan_ok=True), name
        checked += not np.isnan(iou)
    assert checked == 19  # 'train' too: it is predicted and never labelled, so its IoU is 0
    assert result.scores.iou[16] == 0
    assert result.scores.mean_iou == pytest.approx(expected["averageScoreClasses"], abs=1e-12)


def test_cityscapes_class_in_neither_is_left_out_as_officially(official_scores, tmp_path):
    save(tmp_path / "gt" / "ulm_0_0_gtFine_labelIds.png", [[7, 7, 8, 0]])
    save(tmp_path / "pred" / "ulm_0_0.png", [[7, 8, 8, 11]])
    expected = official_scores(tmp_path / "pred", tmp_path / "gt")
    scores = evaluate_folders(tmp_path / "pred", tmp_path / "gt", "cityscapes").scores
    np.testing.assert_array_equal(scores.iou[:2], [0.5, 0.5])
    # The building is predicted only where labels are ignored.
    assert np.isnan(scores.iou[2:]).all() and np.isnan(expected["classScores"]["building"])
    assert scores.mean_iou == expected["averageScoreClasses"] == 0.5


def test_cityscapes_train_ids_on_either_side_give_the_same(cityscapes, tmp_path):
    predictions, labels = cityscapes
    expected = evaluate_folders(predictions, labels, "cityscapes", workers=1).scores
    label_ids = id_format("cityscapes", 19)
    for source, target in ((predictions, tmp_path / "p"), (labels, tmp_path / "g")):
        for path in source.rglob("*_labelIds.png"):
            train_ids = label_ids.decode(np.array(Image.open(path)), path)
            save(target / path.name.replace("labelIds", "labelTrainIds"), train_ids)
    scores = evaluate_folders(
        tmp_path / "p", labels, "cityscapes", prediction_ids="trainIds", workers=1
    ).scores
    np.testing.assert_array_equal(scores.confusion, expected.confusion)
    scores = evaluate_folders(predictions, tmp_path / "g", "cityscapes", workers=1).scores
    np.testing.assert_array_equal(scores.confusion, expected.confusion)


def test_rendered_set_against_itself_and_the_official_evaluator(rendered_root, official_scores, tmp_path):
    labels = Path(rendered_root) / "gtFine" / "val"
    for path in labels.rglob("*_gtFine_labelIds.png"):
        ids = np.array(Image.open(path))
        ids[: len(ids) // 3] = np.roll(ids[: len(ids) // 3], 9, axis=1)
        save(tmp_path / path.name.replace("_gtFine", ""), ids)
    expected = official_scores(tmp_path, labels)
    scores = evaluate_folders(tmp_path, labels, "cityscapes", workers=1).scores
    for name, iou in zip(scores.classes, scores.iou, strict=True):
        assert iou == pytest.approx(expected["classScores"][name], abs=1e-12, nan_ok=True), name
    assert 0 < scores.mean_iou < 1


def test_ade20k_ignores_label_0_and_counts_prediction_0_as_a_miss(tmp_path):
    save(tmp_path / "gt" / "ADE_val_1.png", [[0, 0, 1, 1, 1, 150]])
    save(tmp_path / "pred" / "ADE_val_1.png", [[1, 2, 1, 0, 2, 150]])
    scores = evaluate_folders(tmp_path / "pred", tmp_path / "gt", "ade20k", prediction_ids="labelIds").scores
    np.testing.assert_array_equal(scores.iou[[0, 1, 149]], [1 / 3, 0, 1])
    assert scores.pixel_acc == 2 / 4
    assert scores.mean_iou == pytest.approx(4 / 9)
    assert scores.classes[7] == "bed"


def test_ade20k_train_ids(tmp_path):
    save(tmp_path / "gt" / "a.png", [[0, 1, 2, 150]])
    save(tmp_path / "pred" / "a.png", [[5, 0, 0, 149]])
    scores = evaluate_folders(tmp_path / "pred", tmp_path / "gt", "ade20k", prediction_ids="trainIds").scores
    np.testing.assert_array_equal(scores.iou[[0, 1, 149]], [1 / 2, 0, 1])


@pytest.mark.parametrize("prediction_ids", [None, "labelIds", "trainIds"])
def test_camvid_ignores_label_11(tmp_path, prediction_ids):
    save(tmp_path / "gt" / "a.png", [[11, 0, 0, 10]])
    save(tmp_path / "pred" / "a.png", [[3, 0, 1, 10]])
    scores = evaluate_folders(
        tmp_path / "pred", tmp_path / "gt", "camvid", prediction_ids=prediction_ids
    ).scores
    np.testing.assert_array_equal(scores.iou[[0, 1, 10]], [0.5, 0, 1])
    assert np.isnan(scores.iou[3])


def test_unused_predictions_are_reported(cityscapes):
    predictions, labels = cityscapes
    extra = save(predictions / "berlin_000000_000019.png", [[7]])
    assert evaluate_folders(predictions, labels, "cityscapes", workers=1).unused == (extra,)


def test_hidden_files_are_neither_predictions_nor_labels(cityscapes):
    predictions, labels = cityscapes
    expected = evaluate_folders(predictions, labels, "cityscapes", workers=1)
    name = "bonn_000000_000019"
    for hidden in (f".{name}.png", f"._{name}.png", f".ipynb_checkpoints/{name}.png"):
        save(predictions / hidden, [[7]])
    for hidden in ("bonn/.x_0_0_gtFine_labelIds.png", ".backup/x_0_0_gtFine_labelIds.png"):
        save(labels / hidden, [[7]])
    result = evaluate_folders(predictions, labels, "cityscapes", workers=1)
    assert (result.pairs, result.unused) == (expected.pairs, ())
    for path in predictions.glob("[!.]*.png"):
        path.unlink()
    with pytest.raises(UserError, match=r"no \*\.png in"):
        evaluate_folders(predictions, labels, "cityscapes", workers=1)


def test_predictions_may_lie_in_subfolders(cityscapes):
    predictions, labels = cityscapes
    expected = evaluate_folders(predictions, labels, "cityscapes", workers=1).scores.mean_iou
    for path in list(predictions.glob("ulm*")):
        (predictions / "ulm").mkdir(exist_ok=True)
        path.rename(predictions / "ulm" / path.name)
    assert evaluate_folders(predictions, labels, "cityscapes", workers=1).scores.mean_iou == expected


def _remove(predictions: Path) -> None:
    next(predictions.glob("bonn*")).unlink()


def _colour(predictions: Path) -> None:
    save(next(predictions.glob("bonn*")), np.zeros((32, 41, 3)))


def _truncate(predictions: Path) -> None:
    path = next(predictions.glob("bonn*"))
    path.write_bytes(path.read_bytes()[:200])


def _ids(value: int):
    def change(predictions: Path) -> None:
        path = next(predictions.glob("bonn*"))
        ids = np.array(Image.open(path))
        ids[0, 0] = value
        save(path, ids)

    return change


def _train_ids(predictions: Path) -> None:
    rng = np.random.default_rng(0)
    for path in predictions.glob("*.png"):
        save(path, rng.integers(0, 19, np.array(Image.open(path)).shape))


def _transpose(predictions: Path) -> None:
    path = next(predictions.glob("bonn*"))
    save(path, np.array(Image.open(path)).T)


def _double(predictions: Path) -> None:
    save(predictions / "again" / "bonn_000000_000019.png", [[7]])


def _to_jpg(predictions: Path) -> None:
    for path in predictions.glob("*.png"):
        path.rename(path.with_suffix(".jpg"))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: next(folder.glob("bonn*")).unlink(),
            r"1 of the 3 .*bonn_.*needs bonn_000000_000019\*",
        ),
        (_colour, r"bonn_.* is no label map: RGB colours; store the ids"),
        (_truncate, r"bonn_.* cannot be read as a label map"),
        (
            _ids(34),
            r"bonn_.*ids 34 are not in the format 'cityscapes', which allows 7, 8, 11.*class\)$",
        ),
        (_transpose, r"bonn_.*is 41x32 .*bonn_.*is 32x41"),
        (_double, r"two files for 'bonn_000000_000019'.*again"),
        (_to_jpg, r"no \*\.png in .*only files with \.jpg"),
        (_train_ids, r"look like trainIds: no id is above 18.*--pred-ids trainIds or --pred-ids labelIds"),
    ],
)
def test_bad_predictions(cityscapes, damage, message, workers):
    predictions, labels = cityscapes
    damage(predictions)
    with pytest.raises(UserError, match=message):
        evaluate_folders(predictions, labels, "cityscapes", workers=workers)


def test_declared_label_ids_are_believed(cityscapes):
    predictions, labels = cityscapes
    _train_ids(predictions)
    scores = evaluate_folders(predictions, labels, "cityscapes", prediction_ids="labelIds", workers=1).scores
    assert scores.predicted_pixels[CLASS_IDS.index(33)] == 0


def test_wrong_declaration_gets_a_hint(cityscapes):
    predictions, labels = cityscapes
    with pytest.raises(UserError, match="these may be labelIds: then say so with --pred-ids labelIds"):
        evaluate_folders(predictions, labels, "cityscapes", prediction_ids="trainIds", workers=1)
    _train_ids(predictions)
    _ids(255)(predictions)
    with pytest.raises(UserError, match="these may be trainIds: then say so with --pred-ids trainIds"):
        evaluate_folders(predictions, labels, "cityscapes", workers=1)


def test_ade20k_predictions_from_0_must_be_declared(tmp_path):
    save(tmp_path / "gt" / "a.png", [[1, 2]])
    save(tmp_path / "pred" / "a.png", [[0, 1]])
    with pytest.raises(UserError, match="look like trainIds: no id is above 149, and 0, which they hold"):
        evaluate_folders(tmp_path / "pred", tmp_path / "gt", "ade20k")


def test_label_ids_outside_the_set_are_named(cityscapes):
    predictions, labels = cityscapes
    path = next(labels.rglob("bonn*labelIds.png"))
    ids = np.array(Image.open(path))
    ids[3, 3] = 77
    write_label_map(path, ids)
    with pytest.raises(UserError, match=r"bonn_.*_gtFine_labelIds\.png: ids 77 are not in the format"):
        evaluate_folders(predictions, labels, "cityscapes", workers=1)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("cityscapes", "give the folder gtFine/val"),
        ("ade20k", "annotations/validation"),
        ("camvid", "valannot"),
    ],
)
def test_label_folder_without_labels(tmp_path, dataset, message):
    (tmp_path / "gt").mkdir()
    with pytest.raises(UserError, match=message):
        evaluate_folders(tmp_path, tmp_path / "gt", dataset)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(prediction_dir="missing"), "folder of predictions, missing, does not exist"),
        (dict(label_dir="missing"), "folder of label maps, missing, does not exist"),
        (dict(dataset="voc"), "choose one of cityscapes, ade20k, camvid"),
        (dict(prediction_ids="ids"), "choose one of labelIds, trainIds"),
        (dict(workers=0), "workers=0: at least 1"),
    ],
)
def test_bad_arguments(cityscapes, arguments, message):
    predictions, labels = cityscapes
    defaults = dict(prediction_dir=predictions, label_dir=labels, dataset="cityscapes")
    with pytest.raises(UserError, match=message):
        evaluate_folders(**{**defaults, **arguments})


def test_some_classes_in_any_order_ignore_the_labels_of_the_others(cityscapes):
    """IoU from sets of pixels, where the label is a chosen class; trainIds then count the chosen ones."""
    predictions, labels = cityscapes
    names = ("car", "road", "train")
    ids = (26, 7, 31)
    result = evaluate_folders(predictions, labels, "cityscapes", workers=1, classes=names)
    truth, guess = (
        np.concatenate([np.array(Image.open(path)).ravel() for path in paths])
        for paths in zip(*((pair.label, pair.prediction) for pair in result.pairs), strict=True)
    )
    counts = np.isin(truth, ids)
    truth, guess = truth[counts], guess[counts]
    expected = [((truth == i) & (guess == i)).sum() / ((truth == i) | (guess == i)).sum() for i in ids]
    assert result.scores.classes == names
    np.testing.assert_array_equal(result.scores.iou, expected)

    for pair in result.pairs:  # the same, written as trainIds
        stored = np.array(Image.open(pair.prediction))
        places = np.full(256, 255, np.uint8)
        places[list(ids)] = range(3)
        save(pair.prediction, places[stored])
    again = evaluate_folders(
        predictions, labels, "cityscapes", workers=1, classes=names, prediction_ids="trainIds"
    )
    assert again.scores.as_dict() == result.scores.as_dict()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("car", "water"), "cityscapes has no class water; it has road, "),
        (("car", "car"), "car more than once"),
    ],
)
def test_classes_that_the_data_set_lacks_are_named(cityscapes, classes, message):
    with pytest.raises(UserError, match=message):
        evaluate_folders(*cityscapes, "cityscapes", workers=1, classes=classes)


def test_linked_folders_of_labels_and_predictions_count(cityscapes):
    predictions, labels = cityscapes
    expected = evaluate_folders(predictions, labels, "cityscapes", workers=1).scores.as_dict()
    for folder, name in ((labels, "bonn"), (predictions.parent, "predictions")):
        (folder / name).rename(predictions.parent / f"moved_{name}")
        (folder / name).symlink_to(predictions.parent / f"moved_{name}")
    (labels / "ulm" / "up").symlink_to(labels)
    assert evaluate_folders(predictions, labels, "cityscapes", workers=1).scores.as_dict() == expected


@pytest.mark.parametrize("of", ["labels", "predictions"])
@pytest.mark.parametrize(
    ("put", "why"),
    [
        (os.mkfifo, "it is a FIFO"),
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: path.symlink_to("lost.png"), "it is a link to lost.png, which does not exist"),
    ],
)
def test_what_is_no_file_is_named_and_nothing_waits_for_it(cityscapes, put, why, of):
    predictions, labels = cityscapes
    path = next(labels.rglob("bonn*labelIds.png") if of == "labels" else predictions.glob("bonn*"))
    path.unlink()
    put(path)
    with pytest.raises(UserError, match=rf"{path.name} cannot be read as a label map \({why}\): "):
        evaluate_folders(predictions, labels, "cityscapes", workers=2)


def test_no_part_is_scored_where_a_folder_cannot_be_read(cityscapes, monkeypatch):
    predictions, labels = cityscapes
    real = os.scandir

    def refuse(path):
        if str(path).endswith("ulm"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="val/ulm cannot be read: Permission denied"):
        evaluate_folders(predictions, labels, "cityscapes", workers=1)
    monkeypatch.undo()
    (labels / "ulm").rename(labels.parent / "ulm")
    (labels / "ulm").symlink_to("lost")
    with pytest.raises(UserError, match="val/ulm: it is a link to lost, which does not exist"):
        evaluate_folders(predictions, labels, "cityscapes", workers=1)
