"""The ids of each format, compared with cityscapesscripts' list, and how mmseg's loading changes ids."""

import numpy as np
import pytest
from PIL import Image

from danseg.errors import UserError
from danseg.label_maps.cityscapes_labels import LABELS
from danseg.label_maps.id_formats import OUTPUT_FORMATS, IdFormat, id_format, loaded_ids, prediction_name
from danseg.label_maps.label_png import read_label_map, write_label_map

labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels


def test_cityscapes_ids_are_the_official_ones():
    ids = id_format("cityscapes", 19)
    for label in labels:
        if label.id < 0:
            continue
        expected = 19 if label.ignoreInEval else label.trainId
        assert ids.index[label.id] == expected, label.name
    assert (ids.index >= 0).sum() == 34


def test_ade20k_ids_start_at_1():
    ids = id_format("ade20k", 150)
    np.testing.assert_array_equal(ids.encode(np.array([[0, 149]])), [[1, 150]])
    assert ids.index[0] == 150 and ids.index[151] == -1


def test_camvids_void_is_the_number_after_the_classes():
    ids = id_format("camvid", 11)
    np.testing.assert_array_equal(ids.index[:12], np.arange(12))
    assert ids.void_ids == {11} and (ids.index >= 0).sum() == 12


def written(path, name: str, classes: int) -> np.ndarray:
    """Read a file as train ids."""
    return id_format(name, classes).decode(read_label_map(path), path)


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_round_trip(tmp_path, output_format):
    train_ids = np.random.default_rng(0).integers(0, 19, (6, 10))
    path = tmp_path / "a.png"
    write_label_map(path, id_format(output_format, 19).encode(train_ids))
    with Image.open(path) as image:
        assert image.mode == "L" and image.size == (10, 6)
    restored = written(path, output_format, 19)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, train_ids)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_void_ids_read_as_255(tmp_path):
    write_label_map(tmp_path / "a.png", np.array([[0, 7], [30, 33]]))
    train_ids = written(tmp_path / "a.png", "cityscapes", 19)
    np.testing.assert_array_equal(train_ids, [[255, 0], [255, 18]])


def test_ids_outside_the_format_are_named(tmp_path):
    write_label_map(tmp_path / "a.png", np.array([[7, 34, 200]]))
    message = r"a\.png: ids 34, 200 are not in the format 'cityscapes'.*7, 8, 11 to 13"
    with pytest.raises(UserError, match=message):
        written(tmp_path / "a.png", "cityscapes", 19)


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("png", 19, "choose one of plain, cityscapes, ade20k"),
        ("cityscapes", 11, "19 Cityscapes classes, the data set has 11"),
        ("plain", 256, "holds 1 to 255 classes, the data set has 256"),
    ],
)
def test_bad_formats(name, classes, message):
    with pytest.raises(UserError, match=message):
        id_format(name, classes)


def test_names():
    frame = "ulm_000001_000019_leftImg8bit"
    assert prediction_name(frame, "cityscapes") == "ulm_000001_000019_pred_labelIds.png"
    assert prediction_name(frame, "plain") == "ulm_000001_000019_leftImg8bit.png"
    assert prediction_name(f"ulm/{frame}", "cityscapes") == "ulm/ulm_000001_000019_pred_labelIds.png"
    assert prediction_name("ADE_val_00000001", "ade20k") == "ADE_val_00000001.png"


def test_loaded_ids_are_what_mmsegs_loading_makes(tmp_path):
    from mmseg.datasets.transforms import LoadAnnotations

    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = write_label_map(tmp_path / "ids.png", every)
    for reduce_zero_label in (False, True):
        for label_map in (None, {0: 7, 7: 0, 11: 255, 254: 3}):
            info = dict(seg_map_path=str(path), seg_fields=[], reduce_zero_label=reduce_zero_label)
            theirs = LoadAnnotations().transform(info | dict(label_map=label_map))["gt_seg_map"]
            np.testing.assert_array_equal(loaded_ids(reduce_zero_label, label_map)[every], theirs)


def test_chosen_classes_keep_their_ids_and_the_others_stand_for_none():
    some = id_format("cityscapes", 19).choose([13, 0])
    assert some.class_ids == (26, 7) and some.index[26] == 0 and some.index[7] == 1
    assert all(some.index[label.id] == 2 for label in LABELS if label.id not in (7, 26))
    assert (some.index[34:] == -1).all()


def test_a_class_may_have_several_ids():
    format_ = IdFormat("own", (0, 10), frozenset({255}), {11: 1, 7: 0})
    assert format_.allowed() == "0, 7, 10, 11 (classes) and 255 (no class)"
    ids = np.array([[0, 7, 10, 11, 255]], np.uint8)
    assert format_.decode(ids, "a.png").tolist() == [[0, 0, 1, 1, 255]]
    one = format_.choose([1])
    assert one.decode(ids, "a.png").tolist() == [[255, 255, 0, 0, 255]]
    assert IdFormat("own", (0,), frozenset()).allowed() == "0 (classes)"
