"""Regions cover the pixels whose centres lie inside; coordinates that are none are refused."""

import importlib.util
import math

import numpy as np
import pytest

from danseg.datasets.own.rasterising import (
    Annotated,
    Region,
    area_of,
    corners,
    ellipse,
    number,
    pixels_of,
    rasterised,
    require_pycocotools,
    side,
    turned,
)
from danseg.errors import UserError
from own_sets import inside

SIZE = (40, 60)


def covered(*flat):
    return pixels_of(Region("x", (tuple(map(float, flat)),)), SIZE)


def box(x0, y0, x1, y1):
    return (x0, y0, x1, y0, x1, y1, x0, y1)


def test_a_box_covers_its_pixels_and_no_others():
    expected = np.zeros(SIZE, bool)
    expected[5:12, 3:20] = True
    assert (covered(*box(3, 5, 20, 12)) == expected).all()
    assert area_of(Region("x", (box(3, 5, 20, 12),)), SIZE) == 7 * 17


def test_what_reaches_out_of_the_image_is_cut_off():
    expected = np.zeros(SIZE, bool)
    expected[:10, 50:] = True
    assert (covered(*box(50, -20, 90, 10)) == expected).all()


def test_slanted_sides_are_right_to_half_a_pixel():
    polygon = np.array([(5, 4), (52, 11), (33, 36), (20, 15)], float)
    wrong = covered(*polygon.ravel()) != inside(polygon, *SIZE)
    assert wrong.sum() < 8  # of some 130 pixels at its sides
    for y, x in np.argwhere(wrong):
        ends = np.roll(polygon, -1, axis=0)
        along = ends - polygon
        point = np.array([x + 0.5, y + 0.5])
        t = np.clip(((point - polygon) * along).sum(1) / (along**2).sum(1), 0, 1)
        assert np.hypot(*(polygon + t[:, None] * along - point).T).min() <= 0.75


def test_parts_are_united_and_later_regions_lie_above():
    regions = (
        Region("low", (box(0, 0, 30, 30), box(40, 0, 60, 10))),
        Region("high", (box(10, 10, 50, 20),)),
        Region("none", (box(0, 0, 5, 5),)),
    )
    classes = rasterised(Annotated("x", "x", SIZE, regions), {"low": 1, "high": 2, "none": 255}, 7)
    expected = np.full(SIZE, 7)
    expected[:30, :30] = expected[:10, 40:] = 1
    expected[10:20, 10:50] = 2
    expected[:5, :5] = 255
    assert classes.dtype == np.uint8 and (classes == expected).all()


def test_a_mask_lies_at_its_place():
    mask = np.array([[1, 0], [1, 1]], bool)
    expected = np.zeros(SIZE, bool)
    expected[7:9, 9:11] = mask
    assert (pixels_of(Region("x", mask=mask, place=(7, 9)), SIZE) == expected).all()


def test_an_ellipse_is_turned_clockwise():
    region = Region("x", (tuple(ellipse(30, 20, 20, 8, 30)),))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    dx, dy, angle = x - 30, y - 20, math.radians(30)
    along, across = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
    expected = (along / 20) ** 2 + (across / 8) ** 2 < 1
    assert (pixels_of(region, SIZE) != expected).sum() < 10
    assert np.allclose(turned([(1, 0)], 5, 5, 90), (5, 6))  # the y axis points down


def test_corners():
    assert corners([1, 2, 3.5, 4, 5, 6], SIZE, "x") == (1, 2, 3.5, 4, 5, 6)
    assert corners([1, 2, 3, 4], SIZE, "x") == ()
    for value, said in (
        ([1, 2, 3], "no corners x, y"),
        ("123456", "no corners"),
        (None, "no corners"),
        ([1, 2, 3, 4, 5, math.inf], "inf is no number"),
        ([1, 2, 3, 4, 5, "a"], "'a' is no number"),
        ([1, 2, 3, 4, 5, True], "True is no number"),
        ([1, 2, 3, 4, 1e9, 6], "1e.09, 6 lies far outside of the image, 40 pixels high and 60 wide"),
    ):
        with pytest.raises(UserError, match=f"here: .*{said}"):
            corners(value, SIZE, "here")


def test_numbers():
    assert (number("2.5", "x"), side("40", "x")) == (2.5, 40)
    for value in (0, -3, 2.5, 2**30, None, "x", "nan"):
        with pytest.raises(UserError, match="here: "):
            side(value, "here")


def test_without_pycocotools(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="x.json holds polygons.*pip install 'danseg.polygons.'"):
        require_pycocotools("x.json")
