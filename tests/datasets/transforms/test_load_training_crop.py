"""Training crops: mmseg's, sample by sample for one seed and in distribution for different ones."""

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.stats
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS
from PIL import Image

from danseg.datasets import LoadTrainingCrop
from danseg.errors import UserError

# OpenCV 4's warpAffine has steps of 1/32 pixel, which matters most on white noise.
LEVELS = 1 if int(cv2.__version__.split(".")[0]) >= 5 else 8
THEIRS = ("LoadImageFromFile", "LoadAnnotations", "RandomResize", "RandomCrop", "RandomFlip")


def mmsegs(scale, crop_size, ratio_range=(0.5, 2.0), cat_max_ratio=0.75, flip_prob=0.5) -> Compose:
    options = (
        {},
        {},
        dict(scale=scale, ratio_range=ratio_range, keep_ratio=True),
        dict(crop_size=crop_size, cat_max_ratio=cat_max_ratio),
        dict(prob=flip_prob),
    )
    init_default_scope("mmseg")
    return Compose(
        [TRANSFORMS.build(dict(type=name, **more)) for name, more in zip(THEIRS, options, strict=True)]
    )


def write(folder: Path, image: np.ndarray, label: np.ndarray, suffix: str = ".png") -> dict[str, Any]:
    """Write an image and a label; returns the results dict that a data set would give."""
    info = dict(img_path=str(folder / f"image{suffix}"), seg_map_path=str(folder / "label.png"))
    Image.fromarray(image).save(info["img_path"])
    Image.fromarray(label).save(info["seg_map_path"])
    return info | dict(reduce_zero_label=False, label_map=None)


def noise(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3), np.uint8), rng.integers(0, 5, (height, width), np.uint8)


def sample(transform: Any, info: dict, seed: int) -> dict:
    np.random.seed(seed)
    return transform(dict(info, seg_fields=[]))


# --- one seed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((64, 128), dict(scale=(128, 64), crop_size=(32, 64))),
        ((61, 97), dict(scale=(131, 77), crop_size=(37, 29))),
        ((97, 61), dict(scale=(131, 77), crop_size=(37, 29), ratio_range=(0.9, 3.0))),
        ((40, 50), dict(scale=(50, 40), crop_size=(64, 64))),  # often smaller than the crop
        ((64, 64), dict(scale=(64, 64), crop_size=(32, 32), ratio_range=(1.0, 1.0), flip_prob=1.0)),
        ((33, 65), dict(scale=(65, 33), crop_size=(9, 11), cat_max_ratio=0.24)),  # no crop is varied enough
        ((33, 65), dict(scale=(65, 33), crop_size=(9, 11), cat_max_ratio=1.0, flip_prob=0.0)),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_one_seed_gives_mmsegs_sample(tmp_path, size, options, suffix):
    info = write(tmp_path, *noise(*size), suffix)
    theirs, ours = mmsegs(**options), LoadTrainingCrop(**options)
    for seed in range(25):
        want, got = sample(theirs, info, seed), sample(ours, info, seed)
        np.testing.assert_array_equal(got.pop("gt_seg_map"), want.pop("gt_seg_map"))
        one, other = got.pop("img"), want.pop("img")
        assert one.dtype == np.uint8 and one.shape == other.shape
        assert np.abs(one.astype(int) - other).max() <= LEVELS
        want.pop("swap_seg_labels", None)  # danseg's transform has no such argument
        assert got == want
        assert [type(value) for value in got.values()] == [type(want[key]) for key in got]


def test_without_a_scale_each_image_has_its_own(tmp_path):
    ours = LoadTrainingCrop(scale=None, crop_size=(32, 40))
    for number, size in enumerate([(64, 128), (51, 33)]):
        (tmp_path / str(number)).mkdir()
        info = write(tmp_path / str(number), *noise(*size))
        theirs = mmsegs(scale=size[::-1], crop_size=(32, 40))
        for seed in range(10):
            want, got = sample(theirs, info, seed), sample(ours, info, seed)
            np.testing.assert_array_equal(got["gt_seg_map"], want["gt_seg_map"])
            assert got["scale_factor"] == want["scale_factor"] and got["img_shape"] == want["img_shape"]


@pytest.mark.parametrize("changes", [dict(reduce_zero_label=True), dict(label_map={0: 3, 3: 255, 9: 1})])
def test_ids_are_changed_as_mmseg_does_and_before_classes_are_counted(tmp_path, changes):
    label = np.zeros((64, 128), np.uint8)
    label[:, 70:] = 3
    label[:20, 40:60] = 9
    info = write(tmp_path, noise(64, 128)[0], label) | changes
    options = dict(scale=(128, 64), crop_size=(20, 40))
    theirs, ours = mmsegs(**options), LoadTrainingCrop(**options)
    for seed in range(40):
        want, got = sample(theirs, info, seed), sample(ours, info, seed)
        np.testing.assert_array_equal(got["gt_seg_map"], want["gt_seg_map"])


def test_labels_are_those_of_the_whole_resized_label_at_every_ratio(tmp_path):
    image, label = noise(67, 131)
    info = write(tmp_path, image, label)
    for width in range(40, 300, 7):
        ours = LoadTrainingCrop(
            scale=(width, width), crop_size=1000, ratio_range=(1, 1), cat_max_ratio=1, flip_prob=0
        )
        got = sample(ours, info, 0)
        size = got["gt_seg_map"].shape[::-1]
        assert size[0] == width
        np.testing.assert_array_equal(
            got["gt_seg_map"], cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        )
        whole = cv2.resize(image[..., ::-1], size, interpolation=cv2.INTER_LINEAR)
        assert np.abs(got["img"].astype(int) - whole).max() <= LEVELS


def test_crops_without_a_class_are_drawn_again_and_then_put_up_with(tmp_path):
    info = write(tmp_path, noise(64, 128)[0], np.full((64, 128), 255, np.uint8))
    options = dict(scale=(128, 64), crop_size=(32, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = sample(LoadTrainingCrop(**options), info, 0)
    want = sample(mmsegs(**options), info, 0)
    assert np.abs(got["img"].astype(int) - want["img"]).max() <= LEVELS


# --- many seeds -----------------------------------------------------------------------------------------

HEIGHT, WIDTH, DRAWS = 60, 120, 500
STREET = dict(scale=(WIDTH, HEIGHT), crop_size=(30, 60))


@pytest.fixture(scope="module")
def street(tmp_path_factory) -> dict[str, Any]:
    """A frame whose pixels encode their position, and a label that one class dominates in places."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([2 * x, 4 * y, 0 * x], axis=-1).astype(np.uint8)
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[:, 80:] = 1 + (x[:, 80:] // 6) % 3
    label[50:] = 255
    return write(tmp_path_factory.mktemp("street"), image, label)


def statistics(transform: Any, info: dict, first_seed: int) -> dict[str, np.ndarray]:
    """The random quantities of many samples: scale, position, mirroring, and the share of each class."""
    rows = []
    for seed in range(first_seed, first_seed + DRAWS):
        drawn = sample(transform, info, seed)
        _, y, x = drawn["img"].reshape(-1, 3).mean(axis=0)  # BGR of (x, y, 0)
        counts = np.bincount(drawn["gt_seg_map"].ravel(), minlength=256)
        mirrored = drawn["img"][0, 0, 2] > drawn["img"][0, -1, 2]
        assert mirrored == drawn["flip"]
        rows.append([drawn["scale_factor"][0], x, y, *counts[:4] / counts[:4].sum()])
    names = ("scale", "x", "y", *(f"share of class {c}" for c in range(4)))
    return dict(zip(names, np.array(rows).T, strict=True)) | dict(
        flips=np.array([sample(transform, info, s)["flip"] for s in range(first_seed, first_seed + DRAWS)])
    )


@pytest.fixture(scope="module")
def mmsegs_statistics(street) -> dict[str, np.ndarray]:
    return statistics(mmsegs(**STREET), street, 0)


def p_values(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """Kolmogorov-Smirnov test for continuous quantities, Fisher's exact test for mirroring."""
    values = {key: scipy.stats.ks_2samp(ours[key], theirs[key]).pvalue for key in ours if key != "flips"}
    table = [[side["flips"].sum(), (~side["flips"]).sum()] for side in (ours, theirs)]
    return values | dict(flips=scipy.stats.fisher_exact(table).pvalue)


def test_scales_places_flips_and_classes_are_distributed_as_mmsegs(street, mmsegs_statistics):
    found = p_values(statistics(LoadTrainingCrop(**STREET), street, 10_000), mmsegs_statistics)
    assert min(found.values()) > 0.01, found


class Upper(LoadTrainingCrop):
    """A wrong transform: it never draws the lower half of the positions."""

    def _draw_corner(self, height: int, width: int) -> tuple[int, int]:
        y, x = super()._draw_corner(height, width)
        return y // 2, x


@pytest.mark.parametrize(
    ("kind", "change", "shows_in"),
    [
        (LoadTrainingCrop, dict(ratio_range=(0.5, 1.7)), "scale"),
        (LoadTrainingCrop, dict(cat_max_ratio=1.0), "share of class 0"),
        (LoadTrainingCrop, dict(cat_max_ratio=1.0), "x"),
        (LoadTrainingCrop, dict(flip_prob=0.3), "flips"),
        (Upper, {}, "y"),
    ],
)
def test_a_different_distribution_would_be_noticed(street, mmsegs_statistics, kind, change, shows_in):
    found = p_values(statistics(kind(**STREET | change), street, 10_000), mmsegs_statistics)
    assert found[shows_in] < 1e-4, found


# --- what cannot be used --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(scale=(128, 0)), r"scale=\(128, 0\): give width and height in pixels, two numbers above 0"),
        (dict(scale=128), "scale=128: give width and height"),
        (dict(crop_size=(32.5, 64)), r"crop_size=\(32.5, 64\): give height and width"),
        (dict(crop_size=0), r"crop_size=\(0, 0\)"),
        (dict(ratio_range=(2.0, 0.5)), "the least ratio is greater than the greatest"),
        (dict(ratio_range=(0, 0.5)), "two numbers above 0"),
        (dict(cat_max_ratio=0), "cat_max_ratio=0: give a share above 0"),
        (dict(cat_max_ratio=1.1), "cat_max_ratio=1.1"),
        (dict(flip_prob=-0.1), "flip_prob=-0.1: give a probability from 0 to 1"),
    ],
)
def test_bad_arguments_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        LoadTrainingCrop(**dict(scale=(128, 64), crop_size=(32, 64)) | change)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_image_and_a_label_of_different_sizes_are_an_error(tmp_path, suffix):
    info = write(tmp_path, noise(60, 128)[0], noise(64, 128)[1], suffix)
    with pytest.raises(ValueError, match="the image has 60x128 pixels, its label 64x128"):
        sample(LoadTrainingCrop((128, 64), (32, 64)), info, 0)


@pytest.mark.parametrize(
    ("which", "error", "words"),
    [
        ("img_path", ValueError, "copy or download it"),
        ("seg_map_path", UserError, "copy, download or write it"),
    ],
)
def test_damaged_and_missing_files_are_errors(tmp_path, which, error, words):
    info = write(tmp_path, *noise(64, 128))
    path = Path(info[which])
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(error, match=f"{words} again"):
        sample(LoadTrainingCrop((128, 64), (32, 64)), info, 0)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        sample(LoadTrainingCrop((128, 64), (32, 64)), info, 0)


@pytest.mark.parametrize("how", [3, 6])
def test_an_image_that_is_turned_without_its_label_is_refused(tmp_path, how):
    info = write(tmp_path, *noise(64, 64), ".jpg")
    exif = Image.Exif()
    exif[0x0112] = how
    Image.fromarray(noise(64, 64)[0]).save(info["img_path"], exif=exif)
    with pytest.raises(ValueError, match=f"orientation {how}, by which .* not its label: .*exif_transpose"):
        sample(LoadTrainingCrop((64, 64), (32, 64)), info, 0)


def test_an_image_of_more_than_8_bits_is_refused(tmp_path):
    info = write(tmp_path, *noise(64, 128))
    cv2.imwrite(info["img_path"], noise(64, 128)[0].astype(np.uint16) * 16)
    with pytest.raises(ValueError, match="uint16, which would be cut to 8 bits"):
        sample(LoadTrainingCrop((128, 64), (32, 64)), info, 0)


def test_files_may_come_from_one_of_mmengines_backends(tmp_path):
    info = write(tmp_path, *noise(64, 128))
    local = sample(LoadTrainingCrop((128, 64), (32, 64)), info, 0)
    remote = sample(LoadTrainingCrop((128, 64), (32, 64), backend_args=dict(backend="local")), info, 0)
    np.testing.assert_array_equal(local["img"], remote["img"])
