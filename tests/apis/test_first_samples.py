"""The first samples of a config: those of a training with the same seed, without their normalisation."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from danseg.apis.first_samples import Sample, first_samples
from danseg.engine.config.config_file import load_config
from danseg.engine.config.options import configure_training
from danseg.engine.train import train
from danseg.errors import UserError
from danseg.io.images import read_image
from danseg.label_maps.label_png import read_label_map

TINY = Path(__file__).resolve().parents[1] / "engine" / "tiny.py"


@pytest.fixture
def config(tmp_path, rendered_root):
    def config(**options):
        path = tmp_path / f"{tmp_path.name}.py"
        path.write_text(f"_base_ = [{str(TINY)!r}]\n")
        options = {key.replace("__", "."): value for key, value in options.items()}
        return load_config(path, {"data_root": rendered_root, **options})

    return config


def taken(*arguments) -> list[Sample]:
    return list(first_samples(*arguments))


def test_they_are_what_a_training_with_the_seed_sees_first(config, tmp_path, monkeypatch):
    from mmseg.models import SegDataPreProcessor

    seen, forward = [], SegDataPreProcessor.forward

    def spied(self, data, training=False):
        ready = forward(self, data, training)
        if training:
            pairs = zip(ready["inputs"].clone(), ready["data_samples"], strict=True)
            seen.extend((image, one.gt_sem_seg.data[0].clone(), one.img_path) for image, one in pairs)
        return ready

    with monkeypatch.context() as patch:
        patch.setattr(SegDataPreProcessor, "forward", spied)
        trained = config(train_cfg__max_iters=2, val_dataloader=None, val_cfg=None, val_evaluator=None)
        trained.default_hooks.checkpoint.save_best = None
        configure_training(trained, work_dir=str(tmp_path / "work"), seed=5)
        train(trained)
    assert len(seen) == 4
    samples = taken(config(), "train", 4, 5)
    mean, std = (
        torch.tensor(one).view(3, 1, 1) for one in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    )
    for sample, (image, labels, path) in zip(samples, seen, strict=True):
        rgb = (image * std + mean).permute(1, 2, 0).numpy()
        assert sample.path == path and np.abs(sample.image - rgb).max() < 0.51
        assert np.array_equal(sample.labels, labels.numpy())
    assert samples[0].image.shape == (32, 64, 3)
    other = taken(config(), "train", 4, 6)
    assert not all(np.array_equal(a.image, b.image) for a, b in zip(samples, other, strict=True))


def test_workers_decide_nothing(config):
    few = taken(config(), "train", 3, 0)
    many = taken(config(train_dataloader__num_workers=2), "train", 3, 0)
    for one, other in zip(few, many, strict=True):
        assert one.path == other.path and np.array_equal(one.image, other.image)


@pytest.mark.parametrize("bgr_to_rgb", [True, False])
@pytest.mark.parametrize("normalised", [True, False])
def test_a_test_split_shows_its_files_and_ends(config, bgr_to_rgb, normalised):
    options = {} if normalised else {f"model__data_preprocessor__{key}": None for key in ("mean", "std")}
    samples = taken(config(model__data_preprocessor__bgr_to_rgb=bgr_to_rgb, **options), "val", 99, 0)
    assert len(samples) == 5
    for sample in samples:
        assert np.array_equal(sample.image, read_image(sample.path))
        label = sample.path.replace("leftImg8bit/", "gtFine/").replace(
            "_leftImg8bit", "_gtFine_labelTrainIds"
        )
        assert np.array_equal(sample.labels, read_label_map(label))


def test_labels_of_a_resized_and_padded_image_lie_on_it(config):
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(96, 48), keep_ratio=True),
        dict(type="LoadAnnotations"),
        dict(type="PackSegInputs"),
    ]
    [sample] = taken(
        config(
            val_dataloader__dataset__pipeline=pipeline,
            model__data_preprocessor__test_cfg=dict(size_divisor=40),
        ),
        "val",
        1,
        0,
    )
    assert sample.image.shape == (80, 120, 3) and sample.labels.shape == (80, 120)
    label = sample.path.replace("leftImg8bit/", "gtFine/").replace("_leftImg8bit", "_gtFine_labelTrainIds")
    expected = cv2.resize(read_label_map(label), (96, 48), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(sample.labels[:48, :96], expected)
    assert (sample.labels[48:] == 255).all() and (sample.labels[:, 96:] == 255).all()


def test_a_training_set_begins_again_and_a_split_without_labels_has_none(config):
    sampler = dict(type="DefaultSampler", shuffle=True)
    samples = taken(config(train_dataloader__sampler=sampler), "train", 15, 0)
    paths = [sample.path for sample in samples]
    assert len(paths) == 15 and set(paths[:6]) == set(paths[6:12]) and paths[:6] != paths[6:12]
    unlabelled = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
    [sample] = taken(config(val_dataloader__dataset__pipeline=unlabelled), "val", 1, 0)
    assert sample.labels is None


def test_a_split_that_is_not_there(config):
    with pytest.raises(UserError, match="no test_dataloader"):
        taken(config(test_dataloader=None), "test", 1, 0)
