"""Pictures of one size go through the network together, with and without test-time augmentation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from danseg import apis
from danseg.apis.batches import Batches, NotTakenError, size_of
from danseg.apis.pictures import load
from danseg.apis.predict import InputPipeline, batch_of
from danseg.apis.tta import augmented_config, augmented_model
from danseg.engine.config.config_file import load_config
from danseg.errors import UserError
from danseg.segmentors import coarse_logits, labels, predict_labels

SCALES = dict(
    tta_model=dict(type="SegTTAModel"),
    tta_pipeline=[
        dict(type="LoadImageFromFile"),
        dict(
            type="TestTimeAug",
            transforms=[
                [dict(type="Resize", scale_factor=factor, keep_ratio=True) for factor in (0.75, 1.25)],
                [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
                [dict(type="LoadAnnotations")],
                [dict(type="PackSegInputs")],
            ],
        ),
    ],
)


def samples_of(batches, pictures):
    loader = batches.pipeline.loader
    return [batches.prepared(load(loader, one), "image", picture=False)[1] for one in pictures]


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 6, 7, 3), dtype=np.uint8)
    return list(coarse.repeat(10, axis=1).repeat(10, axis=2))


@pytest.mark.parametrize("channels", [11, 1])
def test_a_batch_has_each_pictures_labels_and_probabilities(near_sighted, pictures, channels):
    one = dict(num_classes=2, out_channels=1, threshold=0.5) if channels == 1 else {}
    model = near_sighted(**one)
    batches = Batches(model, InputPipeline(model), probabilities=True)
    found = batches.labels(samples_of(batches, pictures))
    for picture, (ids, scores) in zip(pictures, found, strict=True):
        assert (ids != apis.predict(model, picture)).mean() < 1e-3 and len(np.unique(ids)) > 1
        assert scores.dtype == np.float16 and scores.shape == (max(channels, 2), 60, 70)
        assert np.abs(scores.astype(np.float32).sum(0) - 1).max() < 2e-3
        assert (scores.argmax(0) == ids).mean() > 0.99


@pytest.mark.parametrize("channels", [11, 1])
def test_augmentation_averages_the_views_of_each_picture(near_sighted, pictures, channels):
    one = dict(num_classes=2, out_channels=1, threshold=0.5) if channels == 1 else {}
    model = near_sighted(**one)
    model.cfg.update(SCALES)
    model.cfg = augmented_config(model.cfg)
    tta = augmented_model(model)
    assert type(tta).__name__ == "LeanTTAModel"
    batches = Batches(tta, InputPipeline(model), probabilities=True)
    samples = samples_of(batches, pictures)
    assert [tuple(view.shape) for view in samples[0]["inputs"]] == [(3, 45, 53)] * 2 + [(3, 75, 88)] * 2
    for sample, (found, scores) in zip(samples, batches.labels(samples), strict=True):
        total = 0  # the average, written out
        for view, about in zip(sample["inputs"], sample["data_samples"], strict=True):
            with torch.no_grad():
                [result] = model.test_step(dict(inputs=[view], data_samples=[about.clone()]))
            logits = result.seg_logits.data
            total = total + (logits.softmax(0) if channels > 1 else torch.cat([1 - logits, logits]))
        average = total / 4
        assert (average.argmax(0).numpy() != found).mean() < 1e-3 and len(np.unique(found)) > 1
        assert np.abs(average.numpy() - scores).max() < 2e-3


def test_augmentation_needs_its_pipeline(near_sighted):
    with pytest.raises(UserError, match="--tta: config .* has no tta_model and no tta_pipeline"):
        augmented_config(near_sighted().cfg)


def test_pictures_are_told_apart_by_size_and_type():
    def sample(*shape, dtype=torch.uint8):
        return dict(inputs=torch.empty(shape, dtype=dtype))

    assert size_of(sample(3, 4, 5)) == size_of(sample(3, 4, 5))
    others = [sample(3, 5, 4), sample(1, 4, 5), sample(3, 4, 5, dtype=torch.float32)]
    assert size_of(sample(3, 4, 5)) not in [size_of(one) for one in others]
    views = dict(inputs=[torch.empty(3, 4, 5), torch.empty(3, 8, 10)])
    assert size_of(views) != size_of(dict(inputs=views["inputs"][:1]))


def test_what_a_network_cannot_take_is_no_bug_of_all(near_sighted, pictures, monkeypatch):
    model = near_sighted()
    batches = Batches(model, InputPipeline(model))
    samples = samples_of(batches, pictures)
    for error, raised in (
        (RuntimeError("no such size"), NotTakenError),
        (RuntimeError("CUDA error: an illegal memory access"), RuntimeError),
        (TypeError("a bug"), TypeError),
    ):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr("danseg.apis.batches.predict_labels", fail)
        with pytest.raises(raised, match=str(error)):
            batches.labels(samples)


def test_the_given_config_is_left_as_it_was():
    config = load_config(Path(__file__).resolve().parents[1] / "engine" / "tiny.py")
    before = str(config)
    augmented = augmented_config(config)
    assert str(config) == before
    assert "LoadAnnotations" not in str(augmented.test_dataloader) and "TestTimeAug" in str(
        augmented.test_dataloader
    )


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_labels_of_a_batch_are_to_the_bit_those_of_its_logits(
    camvid, make_config, pictures, mode, monkeypatch
):
    windows = dict(mode="slide", crop_size=(32, 32), stride=(24, 24)) if mode == "slide" else None
    torch.manual_seed(0)
    model = apis.load_model(make_config(camvid, mode=windows), None, "cpu")
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    batches = Batches(model, InputPipeline(model))
    data = model.data_preprocessor(batch_of(samples_of(batches, pictures)), training=False)
    with torch.no_grad():
        each = [one.labels() for one in coarse_logits(model, **data)]
    calls, argmax = [], labels.upsampled_argmax
    monkeypatch.setattr(
        labels,
        "upsampled_argmax",
        lambda logits, *a, **k: calls.append(len(logits)) or argmax(logits, *a, **k),
    )
    found = predict_labels(model, **data)
    assert all(torch.equal(one, other) for one, other in zip(found, each, strict=True))
    assert len(each[0].unique()) > 1
    assert calls == ([3] if mode == "whole" else [1, 1, 1])  # logits of windows are not copied
