"""Pictures by which a quantiser finds its ranges: files of the training set, resized as in use, nothing else."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from danseg.apis.training_pictures import training_pictures
from danseg.engine.config.config_file import load_config
from danseg.errors import UserError

TINY = Path(__file__).resolve().parents[1] / "engine" / "tiny.py"


@pytest.fixture
def config(tmp_path, rendered_root):
    def config(**options):
        path = tmp_path / "tiny_here.py"
        path.write_text(f"_base_ = [{str(TINY)!r}]\n")
        options = {key.replace("__", "."): value for key, value in options.items()}
        return load_config(path, {"data_root": rendered_root, **options})

    return config


def files(root) -> list[np.ndarray]:
    paths = sorted(Path(root, "leftImg8bit", "train").rglob("*.png"))
    return [cv2.imread(str(path))[..., ::-1] for path in paths]


def test_they_are_the_files_in_the_size_of_the_test_pipeline(config, rendered_root):
    stored = files(rendered_root)
    resizing = config()
    width, height = 40, 20
    resize = dict(type="Resize", scale=(width, height), keep_ratio=True)
    resizing.test_dataloader.dataset.pipeline.insert(1, resize)
    found = list(training_pictures(resizing, 99))
    assert len(found) == len(stored) > 2
    for picture, file in zip(found, stored, strict=True):
        assert picture.shape == (height, width, 3) and picture.dtype == np.uint8
        assert np.array_equal(picture, cv2.resize(file, (width, height)))


def test_a_part_is_spread_over_the_set(config):
    every = list(training_pictures(config(), 99))
    first, last = training_pictures(config(), 2)
    assert np.array_equal(first, every[0]) and np.array_equal(last, every[-1])


def test_a_pipeline_that_normalises_shows_the_same_pictures(config):
    plain = list(training_pictures(config(), 2))
    changed = config()
    normalise = dict(type="Normalize", mean=[1.0] * 3, std=[2.0] * 3, to_rgb=True)
    changed.test_dataloader.dataset.pipeline.insert(1, normalise)
    for one, other in zip(plain, training_pictures(changed, 2), strict=True):
        assert np.array_equal(one, other)


def test_a_set_of_several_counts_as_one(config):
    every = list(training_pictures(config(), 99))
    twice = config()
    part = twice.train_dataloader.dataset
    twice.train_dataloader.dataset = dict(type="ConcatDataset", datasets=[part, part])
    assert len(list(training_pictures(twice, 99))) == 2 * len(every)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(train_dataloader=None), "has no train_dataloader"),
        (dict(data_root="nowhere"), "nowhere.* is no folder"),
    ],
)
def test_what_is_not_there_is_told(config, options, said):
    with pytest.raises(UserError, match=said):
        next(training_pictures(config(**options), 2))


def test_other_than_colours_of_eight_bits_are_refused(config):
    grey = config()
    grey.test_dataloader.dataset.pipeline[0] = dict(type="LoadImageFromFile", color_type="grayscale")
    with pytest.raises(UserError, match=r"is uint8 of shape \(.*colours of 8 bits alone"):
        next(training_pictures(grey, 2))
