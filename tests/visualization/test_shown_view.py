"""Which views a figure shows unasked, and how a picture lies in the network's input."""

from types import SimpleNamespace

import torch

from danseg.visualization import Placement
from danseg.visualization.shown_view import MOST_VIEWS, placement_of, usual_views


def test_the_views_of_the_head_or_else_the_first_ones():
    backbone = [f"backbone.{number}" for number in range(20)]
    assert usual_views([*backbone, "decode_head.pam", "decode_head.cam:x"]) == [
        "decode_head.pam",
        "decode_head.cam:x",
    ]
    assert usual_views(backbone) == backbone[:MOST_VIEWS]
    assert usual_views([]) == []


def test_where_a_picture_lies():
    meta = dict(ori_shape=(60, 72), img_shape=(40, 48))
    sample = SimpleNamespace(metainfo=meta)
    data = dict(inputs=torch.zeros(1, 3, 64, 80), data_samples=[sample])
    assert placement_of(data) == Placement((60, 72), (64, 80), (40, 48))
    for key in ("padding_size", "img_padding_size"):  # left, right, top, bottom; the latter is asked first
        meta[key] = (3, 29, 5, 19) if key == "img_padding_size" else (1, 1, 1, 1)
    assert placement_of(data) == Placement((60, 72), (64, 80), (40, 48), offset=(5, 3))
