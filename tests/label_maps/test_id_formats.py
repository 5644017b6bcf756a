"""The ids of the formats, against cityscapesscripts' own list, and the files."""

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels
from PIL import Image

from danseg.errors import UserError
from danseg.label_maps.id_formats import (
    OUTPUT_FORMATS,
    id_format,
    prediction_name,
    read_label_map,
    read_prediction,
    write_label_map,
)


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


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_round_trip(tmp_path, output_format):
    train_ids = np.random.default_rng(0).integers(0, 19, (6, 10))
    path = tmp_path / "a.png"
    write_label_map(path, id_format(output_format, 19).encode(train_ids))
    with Image.open(path) as image:
        assert image.mode == "L" and image.size == (10, 6)
    restored = read_prediction(path, output_format, 19)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, train_ids)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_void_ids_read_as_255(tmp_path):
    write_label_map(tmp_path / "a.png", np.array([[0, 7], [30, 33]]))
    train_ids = read_prediction(tmp_path / "a.png", "cityscapes", 19)
    np.testing.assert_array_equal(train_ids, [[255, 0], [255, 18]])


def test_ids_outside_the_format_are_named(tmp_path):
    write_label_map(tmp_path / "a.png", np.array([[7, 34, 200]]))
    message = r"a\.png: ids 34, 200 are not in the format 'cityscapes'.*7, 8, 11\.\.13"
    with pytest.raises(UserError, match=message):
        read_prediction(tmp_path / "a.png", "cityscapes", 19)


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
    image = "data/leftImg8bit/val/ulm/ulm_000001_000019_leftImg8bit.png"
    assert prediction_name(image, "cityscapes") == "ulm_000001_000019_pred_labelIds.png"
    assert prediction_name(image, "plain") == "ulm_000001_000019_leftImg8bit.png"
    assert prediction_name("x/ADE_val_00000001.jpg", "ade20k") == "ADE_val_00000001.png"


def test_palette_images_give_their_indices(tmp_path):
    ids = np.array([[3, 1], [0, 2]], dtype=np.uint8)
    image = Image.fromarray(ids).convert("P")
    image.putpalette([9, 9, 9] * 256)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), ids)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), "3-channel colour image"),
        (np.zeros((4, 4, 4), np.uint8), "4-channel colour image"),
        (np.zeros((4, 4), np.uint16), "16 bits a pixel|more than 8 bits"),
        (np.zeros((4, 4), bool), "1-bit mask"),
    ],
)
def test_other_images_are_refused(tmp_path, array, message):
    Image.fromarray(array).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=rf"a\.png: .*({message})"):
        read_label_map(tmp_path / "a.png")


def test_damaged_and_missing_files_are_named(tmp_path):
    path = tmp_path / "a.png"
    write_label_map(path, np.random.default_rng(0).integers(0, 19, (64, 64)))
    content = path.read_bytes()
    for damaged in (b"", b"no image", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.png: cannot be read as an image"):
            read_label_map(path)
    with pytest.raises(UserError, match=r"b\.png: no such file"):
        read_label_map(tmp_path / "b.png")


def test_unwritable_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot write .*nowhere"):
        write_label_map(tmp_path / "nowhere" / "a.png", np.zeros((2, 2), np.uint8))
