"""LabelMe's shapes of each kind become the pixels that they show."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danseg.datasets.own.labelme import is_labelme, read_labelme
from danseg.datasets.own.rasterising import rasterised
from danseg.errors import UserError

PATH = Path("x.json")


def content(*shapes):
    return dict(version="5", shapes=list(shapes), imageHeight=30, imageWidth=40, imageData=None)


def shape(kind, points, label="a", **more):
    return dict(label=label, shape_type=kind, points=points, **more)


def drawn(*shapes):
    read, left_out = read_labelme("x", PATH, content(*shapes))
    assert (read.name, read.size) == ("x", (30, 40))
    return rasterised(read, {"a": 1, "b": 2}, 0), left_out


def filled(*boxes):
    classes = np.zeros((30, 40), np.uint8)
    for x0, y0, x1, y1, value in boxes:
        classes[y0:y1, x0:x1] = value
    return classes


def test_recognised():
    assert is_labelme(content())
    assert not is_labelme([]) and not is_labelme({"shapes": 3}) and not is_labelme({"objects": []})


def test_later_shapes_lie_above():
    low, high = [[2, 3], [20, 3], [20, 13], [2, 13]], [[10, 5], [30, 5], [30, 25], [10, 25]]
    found, _ = drawn(shape("polygon", low), shape("polygon", high, "b"))
    assert (found == filled((2, 3, 20, 13, 1), (10, 5, 30, 25, 2))).all()
    found, _ = drawn(shape("polygon", high, "b"), shape("polygon", low))
    assert (found == filled((10, 5, 30, 25, 2), (2, 3, 20, 13, 1))).all()


@pytest.mark.parametrize("points", [[[2, 3], [20, 13]], [[20, 13], [2, 3]], [[2, 13], [20, 3]]])
def test_a_rectangle_from_any_corner(points):
    assert (drawn(shape("rectangle", points))[0] == filled((2, 3, 20, 13, 1))).all()


def test_a_circle_by_its_centre_and_a_point_on_it():
    found, _ = drawn(shape("circle", [[20, 15], [26, 23]]))  # radius 10
    y, x = np.mgrid[:30, :40] + 0.5
    assert ((found == 1) != (np.hypot(x - 20, y - 15) < 10)).sum() < 8


def test_a_mask_at_its_place():
    mask = np.zeros((6, 5), np.uint8)
    mask[1:, ::2] = 255
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    found, _ = drawn(shape("mask", [[7, 9], [11, 14]], mask=text))
    expected = np.zeros((30, 40), np.uint8)
    expected[9:15, 7:12] = mask > 0
    assert (found == expected).all()
    for change, said in (
        (dict(mask="%%"), "its mask cannot be decoded"),
        (dict(points=[[38, 9], [42, 14]]), "mask of 6x5 does not lie in the image"),
        (dict(points=[[7, 9]]), "does not lie in the image"),
    ):
        with pytest.raises(UserError, match=said):
            drawn(shape("mask", [[7, 9], [11, 14]], mask=text) | change)


def test_shapes_without_an_area_are_counted():
    found, left_out = drawn(
        shape("point", [[3, 3]]),
        shape("linestrip", [[3, 3], [9, 9], [9, 20]]),
        shape("polygon", [[3, 3], [9, 9]]),
        shape("rectangle", [[2, 3], [20, 13]]),
    )
    assert left_out == 3 and (found == filled((2, 3, 20, 13, 1))).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(points=[[1, 2]]), None),
        (dict(label=None), "x.json, shape 1: it has no label"),
        (dict(label=""), "it has no label"),
        (dict(points=None), r"x.json, shape 1 \(a\): points is None; it should be a list"),
        (dict(points=[[1, 2, 3]]), "points is"),
        (dict(points=[[1, "x"], [2, 3], [3, 4]]), "'x' is no number"),
        (dict(points=[[1, 2], [2, 3], [1e8, 4]]), "far outside of the image"),
        (dict(shape_type="blob"), "shape_type is 'blob' with 3 points; read are polygon"),
    ],
)
def test_one_message_each(wrong, said):
    good = shape("polygon", [[1, 2], [9, 3], [5, 9]])
    if said is None:
        assert drawn(good | wrong)[1] == 1
        return
    with pytest.raises(UserError, match=said):
        drawn(good | wrong)


def test_sizes():
    for size in (None, 0, "x", 2.5):
        with pytest.raises(UserError, match="x.json: imageHeight"):
            read_labelme("x", PATH, content() | dict(imageHeight=size))
