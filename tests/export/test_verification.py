import math

import numpy as np
import pytest
import torch

from danseg.export.normalisation import normalisation
from danseg.export.verification import Bound, Reference, Row, Verification, fitted, sizes
from few_layers import few_layers, few_layers_model

BOUND = Bound(1e-4, 0.9999)


@pytest.mark.parametrize(
    "rows, said",
    [
        ([Row(1, 100, 100, 1e-5, 1)], None),
        ([Row(1, 10, 10, 1e-5, 1)], None),  # one pixel may always differ
        ([Row(1, 10, 10, None, 0)], None),
        (
            [Row(1, 10, 10, 1e-5, 2)],
            "98.00 % of its labels are those of the network, and 99.99 % is asked for",
        ),
        ([Row(1, 10, 10, 1e-5, 1), Row(1, 10, 10, 1e-5, 1)], "99.00 % of its labels"),
        (
            [Row(1, 9, 9, 1e-5, 0), Row(1, 10, 10, 2e-4, 0)],
            "on pictures of 10 x 10 its logits differ by 0.0002 of the largest one, and 0.0001 is",
        ),
        ([Row(1, 10, 10, math.nan, 0)], "on pictures of 10 x 10 its logits differ by nan"),
        ([Row(1, 10, 10, math.inf, 0)], "on pictures of 10 x 10 its logits differ by inf"),
    ],
)
def test_what_fails(rows, said):
    fault = Verification(tuple(rows), BOUND).fault
    assert fault is None if said is None else fault.startswith(said)


def test_sizes():
    assert list(sizes((48, 72), None)) == [(1, 48, 72), (3, 48, 72)]
    runs = list(sizes((512, 1024), 32))
    assert runs[0] == (1, 512, 1024) and runs[-1] == (1, 32, 32)
    assert {batch for batch, *_ in runs} == {1, 2, 3} and len(runs) == len(set(runs)) == 4
    assert any(height % 8 and width % 8 for _, height, width in runs)
    assert any(height < width for _, height, width in runs) and any(h > w for _, h, w in runs)
    assert all(min(size) >= 32 for _, *size in sizes((40, 40), 32))


def test_a_photo_is_cut_or_enlarged():
    photo = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    np.testing.assert_array_equal(fitted(photo, 4, 6), photo[3:7, 7:13])
    for size in ((10, 20), (40, 20), (10, 50), (33, 47), (10, 21)):
        assert fitted(photo, *size).shape == (*size, 3)


def test_pictures_are_always_the_same():
    reference = Reference(few_layers_model(few_layers()), normalisation(few_layers_model(few_layers())))
    first, again = (reference.pictures(2, 40, 50) for _ in range(2))
    assert first.shape == (2, 40, 50, 3) and first.dtype == np.uint8 and first.std() > 30
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()


def test_the_reference_is_the_network():
    model = few_layers_model(few_layers(data_preprocessor=dict(test_cfg=dict(size_divisor=64))))
    reference = Reference(model, normalisation(model))
    rgb = reference.pictures(2, 40, 56)
    normal = (torch.from_numpy(rgb).permute(0, 3, 1, 2) - torch.tensor([123.0, 116, 104]).view(-1, 1, 1)) / (
        torch.tensor([58.0, 57, 56]).view(-1, 1, 1)
    )
    torch.testing.assert_close(reference.inputs(rgb), normal)
    logits, labels = reference(rgb)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(normal, mode="tensor"))
    whole = torch.nn.functional.interpolate(logits, (40, 56), mode="bilinear")
    assert (labels != whole.argmax(1)).sum() <= 1
    assert model.data_preprocessor.test_cfg and model.test_cfg.mode == "whole"  # as they were


def test_the_smallest_picture_is_found():
    model = few_layers_model(few_layers())
    reference = Reference(model, normalisation(model))
    assert reference.smallest(32, 512) == 32
    limit = dict.fromkeys(range(100), ValueError)
    encode = model.extract_feat

    def picky(inputs):
        if inputs.shape[-1] in limit:
            raise ValueError("too small")
        return encode(inputs)

    model.extract_feat = picky
    reference = Reference(model, normalisation(model))
    assert reference.smallest(32, 512) == 128 and reference.smallest(32, 100) is None
