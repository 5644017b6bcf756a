"""Labels without full-resolution logits, compared with mmseg's own ``predict``."""

import numpy as np
import pytest
import torch
from mmseg.models import EncoderDecoder

from cpu_alone import cpu_alone
from danseg.segmentors import LeanEncoderDecoder, coarse_logits, predict_labels, predict_probabilities
from danseg.segmentors.labels import image_logits

every_segmentor = pytest.mark.parametrize("lean", [False, True], ids=["mmseg's", "danseg's"])


@pytest.mark.parametrize("lean", [cpu_alone(False), True], ids=["mmseg's", "danseg's"])
def test_labels_are_mmsegs(build, batch, case, lean, device, assert_same_labels):
    arguments, images = case
    with torch.no_grad():
        theirs = build(**arguments, device=device).test_step(batch(**images))
    model = build(**arguments, lean=lean, device=device)
    data = model.data_preprocessor(batch(**images), False)
    ours = predict_labels(model, **data)
    threshold = getattr(model.decode_head, "threshold", None)
    for labels, want in zip(ours, theirs, strict=True):
        assert_same_labels(labels, want, threshold)
    coarse = coarse_logits(model, **data)
    assert {one.dtype for one in ours} == {torch.int64 if coarse is None else torch.uint8}


@every_segmentor
def test_probabilities_are_those_of_mmsegs_logits(build, batch, case, lean):
    arguments, images = case
    with torch.no_grad():
        theirs = build(**arguments).test_step(batch(**images))
    model = build(**arguments, lean=lean)
    data = model.data_preprocessor(batch(**images), False)
    labels = predict_labels(model, **data)
    for (found, probabilities), alone, one in zip(
        predict_probabilities(model, **data), labels, theirs, strict=True
    ):
        logits = one.seg_logits.data.double().numpy()
        if len(logits) == 1:  # of a single channel mmseg has taken the sigmoid
            want = np.concatenate([1 - logits, logits])
        else:
            want = np.exp(logits) / np.exp(logits).sum(0)
        assert probabilities.dtype == torch.float32 and want.std(axis=(1, 2)).max() > 1e-3
        np.testing.assert_allclose(probabilities.numpy(), want, atol=2e-5)
        assert torch.equal(found, alone)


def test_an_images_logits_have_its_labels_and_at_each_pixel_its_probabilities(build, batch, case):
    arguments, images = case
    model = build(**arguments, lean=True)
    data = model.data_preprocessor(batch(**images), False)
    for index in range(len(data["inputs"])):
        one = {key: value[index : index + 1] for key, value in data.items()}
        before = one["data_samples"][0].clone()
        found = image_logits(model, **one)
        assert one["data_samples"][0].keys() == before.keys()  # nothing is written into it
        [(labels, probabilities)] = predict_probabilities(model, **one)
        assert torch.equal(found.labels().long(), labels.long())
        height, width = labels.shape
        for x, y in [(0, 0), (width - 1, height - 1), (width // 3, height // 2)]:
            logits = found.at(x, y)
            assert logits.dtype == torch.float32
            if len(logits) == 1:
                expected, given = probabilities[1:, y, x], logits.sigmoid()
            else:
                expected, given = probabilities[:, y, x], logits.softmax(0)
            torch.testing.assert_close(given, expected, atol=5e-5, rtol=0)


@every_segmentor
def test_full_resolution_logits_are_not_made_or_once_for_windows(build, batch, full_resolution, mode, lean):
    model = build(mode=mode, lean=lean)
    data = model.data_preprocessor(batch((160, 240), size=(160, 240)), False)
    with full_resolution() as made:
        predict_labels(model, **data)
    assert made.number == (mode is not None)
    with torch.no_grad(), full_resolution() as made:
        EncoderDecoder.predict(model, **data)
    assert made.number >= 2, "mmseg makes them twice, or this sees nothing"


def _zeros(self, *args):
    results = EncoderDecoder.predict(self, *args)
    for result in results:
        result.pred_sem_seg.data.zero_()
    return results


def _no_logits(self, seg_logits, data_samples=None):
    return EncoderDecoder.postprocess_result(self, seg_logits * 0, data_samples)


@pytest.mark.parametrize("base", [EncoderDecoder, LeanEncoderDecoder])
@pytest.mark.parametrize("own", [dict(predict=_zeros), dict(postprocess_result=_no_logits)])
def test_a_class_with_its_own_way_goes_it(build, batch, base, own):
    model = build()
    assert coarse_logits(model, **model.data_preprocessor(batch((101, 150)), False))
    model.__class__ = type("Own", (base,), own)
    [labels] = predict_labels(model, **model.data_preprocessor(batch((101, 150)), False))
    assert labels.unique().tolist() == [0]
    with torch.no_grad():
        assert model.test_step(batch((101, 150)))[0].pred_sem_seg.data.unique().tolist() == [0]


def test_a_head_with_its_own_way_goes_it(build, batch):
    model = build(lean=True)
    head = type(model.decode_head)
    model.decode_head.__class__ = type(
        "Own", (head,), dict(predict_by_feat=lambda *args: 0 * head.predict_by_feat(*args))
    )
    [labels] = predict_labels(model, **model.data_preprocessor(batch((101, 150)), False))
    assert labels.unique().tolist() == [0]
