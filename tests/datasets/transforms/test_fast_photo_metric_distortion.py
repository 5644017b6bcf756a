"""Colour jitter: mmseg's, bit for bit."""

import numpy as np
import pytest
from mmseg.datasets.transforms import PhotoMetricDistortion

from danseg.datasets import FastPhotoMetricDistortion

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "options",
    [{}, dict(brightness_delta=80, contrast_range=(0.2, 3.0), saturation_range=(0.0, 4.0), hue_delta=90)],
    ids=["default", "strong"],
)
def test_the_same_seed_gives_mmsegs_image(options):
    theirs, ours = PhotoMetricDistortion(**options), FastPhotoMetricDistortion(**options)
    changed = 0
    for seed in range(60):  # enough for every combination of the five random choices
        np.random.seed(seed)
        want = theirs(dict(img=NOISE.copy()))["img"]
        after = np.random.random()
        np.random.seed(seed)
        np.testing.assert_array_equal(ours(dict(img=NOISE))["img"], want)
        assert np.random.random() == after  # both drew the same number of random numbers
        changed += (want != NOISE).any()
    assert changed > 40


def test_the_image_given_is_left_alone():
    before = NOISE.copy()
    for seed in range(10):
        np.random.seed(seed)
        FastPhotoMetricDistortion()(dict(img=NOISE))
    np.testing.assert_array_equal(NOISE, before)


@pytest.mark.parametrize("image", [NOISE.astype(np.uint16), NOISE[..., 0], NOISE[..., :2]])
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match="uint8 images of three channels, got.*take it out of the pipeline"):
        FastPhotoMetricDistortion()(dict(img=image))
