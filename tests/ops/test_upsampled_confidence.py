"""danseg.ops.upsampled_confidence against torch's resizing and softmax."""

import pytest
import torch
from torch.nn.functional import interpolate

from danseg.ops.upsampled_confidence import upsampled_confidence

CASES = [
    # logits, size, through, padding (left, right, top, bottom)
    ((19, 33, 47), (200, 311), None, (0, 0, 0, 0)),
    ((5, 30, 41), (11, 9), None, (0, 0, 0, 0)),
    ((4, 9, 11), (9, 11), None, (0, 0, 0, 0)),
    ((7, 8, 11), (100, 140), (64, 88), (3, 4, 0, 10)),
    ((300, 4, 5), (9, 12), None, (0, 0, 0, 0)),
]


def resized(logits, size, through, padding, align_corners):
    logits = logits[None]
    if through is not None:
        logits = interpolate(logits, through, mode="bilinear", align_corners=align_corners)
    left, right, top, bottom = padding
    logits = logits[:, :, top : logits.shape[2] - bottom, left : logits.shape[3] - right]
    return interpolate(logits, size, mode="bilinear", align_corners=align_corners)[0]


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("shape", "size", "through", "padding"), CASES, ids=str)
def test_equals_resizing_and_softmax(shape, size, through, padding, align_corners, device):
    logits = drawn(*shape)
    want = resized(logits, size, through, padding, align_corners).softmax(0).amax(0)
    options = dict(align_corners=align_corners, through=through, padding=padding)
    found = upsampled_confidence(logits.to(device), size, **options)
    assert found.shape == want.shape and (found.cpu() - want).abs().max() < 1e-12
    narrow = upsampled_confidence(logits.to(device, torch.bfloat16), size, **options)
    exact = resized(logits.bfloat16().double(), size, through, padding, align_corners).softmax(0).amax(0)
    assert narrow.dtype == torch.float32 and (narrow.cpu() - exact).abs().max() < 1e-5
    assert float(narrow.max()) <= 1


@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_one_channel(threshold):
    logits = drawn(1, 7, 9)
    p = resized(logits, (30, 31), None, (0, 0, 0, 0), False).sigmoid()[0]
    found = upsampled_confidence(logits, (30, 31), threshold=threshold)
    assert (found - torch.where(p > threshold, p, 1 - p)).abs().max() < 1e-12


def test_many_classes_take_the_memory_of_a_tile(extra_peak):
    script = """
import torch
from danseg.ops.upsampled_confidence import upsampled_confidence
torch.set_num_threads(1)
logits = torch.randn(150, 64, 64)
upsampled_confidence(logits, (65, 65))
print(peak_growth(lambda: upsampled_confidence(logits, (512, 512))))
"""
    assert extra_peak(script) < 0.25 * 150 * 512 * 512 * 4
