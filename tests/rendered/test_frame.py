"""What a frame shows: enough classes, an image that fits its labels, any size."""

import numpy as np
import pytest

from danseg.label_maps.cityscapes_labels import TRAIN_IDS
from danseg.rendered.street_set import draw_frame


@pytest.mark.slow
def test_most_frames_have_at_least_12_classes_and_all_19_occur():
    frames = [draw_frame("train", k, height=128, width=256, seed=0)[1] for k in range(16)]
    shares = []
    for instances in frames:
        train_ids = TRAIN_IDS[np.where(instances < 1000, instances, instances // 1000)]
        shares.append(np.bincount(train_ids.ravel(), minlength=256)[:19] / train_ids.size)
    shares = np.array(shares)
    # A class counts if it covers at least 15 of the 32768 pixels.
    assert np.mean((shares > 15 / 32768).sum(1) >= 12) >= 0.9
    assert (shares.max(0) > 0.002).all(), "a class is never larger than 0.2 % of a frame"
    assert ((shares > 0.001).mean(0) >= 0.3).all(), "a class is missing from most frames"


def test_image_and_label_show_the_same_thing():
    """Sky is brighter than the road, and ends where its label ends: shifted labels would not fit."""
    checked = 0
    for k in range(4):
        image, instances = draw_frame("val", k, height=96, width=192, seed=1)
        ids = np.where(instances < 1000, instances, instances // 1000)
        grey = image.mean(2)
        assert grey[ids == 23].mean() > grey[ids == 7].mean()
        # The image changes more across the edge of the sky than elsewhere near it.
        edge = (ids[1:] != 23) & (ids[:-1] == 23)
        step = np.abs(np.diff(grey, axis=0))
        inside = (ids[1:] == 23) & (ids[:-1] == 23)
        assert step[edge].mean() > 3 * step[inside].mean()
        checked += edge.sum()
    assert checked > 200


@pytest.mark.parametrize("size", [(32, 64), (97, 131), (200, 100)])
def test_any_size_can_be_drawn(size):
    image, instances = draw_frame("train", 1, height=size[0], width=size[1], seed=0)
    assert image.shape == (*size, 3) and instances.shape == size and image.std() > 10
