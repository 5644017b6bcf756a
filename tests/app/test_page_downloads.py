"""Figures and numbers to take along are those of what is seen."""

import io

import cv2
import numpy as np
import pytest

from danseg.apis import explore
from danseg.app.page_downloads import figure_png, numbers_npz
from danseg.errors import UserError

ASKED = {"x": "11", "y": "30", "view": "decode_head.pam", "view1": "decode_head.cam"}


@pytest.fixture(scope="module")
def explorations(networks, pictures) -> list:
    return [explore(one.model, str(pictures[0])) for one in networks]


def test_numbers_are_those_of_the_view(explorations):
    one, both = (
        np.load(io.BytesIO(numbers_npz(explorations[:count], ["first", "second"][:count], ASKED)))
        for count in (1, 2)
    )
    rows = explorations[0].attention("decode_head.pam", [(11, 30)]).rows
    for found in (one["attention/decode_head.pam"], both["0/attention/decode_head.pam"]):
        assert np.array_equal(found, rows)
    assert np.array_equal(one["labels"], explorations[0].labels) and one["positions"].tolist() == [[11, 30]]
    weights = explorations[1].attention("decode_head.cam").weights
    assert np.array_equal(both["1/attention/decode_head.cam"], weights)
    assert both["networks"].tolist() == ["first", "second"]


def test_a_figure_of_two_networks_has_one_below_the_other(explorations):
    one, both = (
        cv2.imdecode(np.frombuffer(figure_png(explorations[:count], ["a", "b"][:count], ASKED), np.uint8), 1)
        for count in (1, 2)
    )
    height, width = one.shape[:2]
    assert both.shape[0] > 1.5 * height and np.array_equal(both[:height, :width], one)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": "72"}, "x must be a whole number from 0 to 71"),
        ({"y": "top"}, "y must be .* got 'top'"),
        ({"view": "other"}, "there is no view 'other'"),
    ],
)
@pytest.mark.parametrize("make", [figure_png, numbers_npz])
def test_what_is_not_there_is_told(explorations, make, changes, message):
    with pytest.raises(UserError, match=message):
        make(explorations[:1], ["first"], {**ASKED, **changes})
