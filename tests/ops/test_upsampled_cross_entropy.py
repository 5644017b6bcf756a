"""danseg.ops.upsampled_cross_entropy against F.interpolate and F.cross_entropy, and its memory."""

import sys

import pytest
import torch
from torch.nn import functional as F

from danseg.ops import upsampled_cross_entropy
from danseg.ops.upsampled_cross_entropy import upsampled_pixel_losses


def _inputs(classes=5, small=(7, 9), large=(50, 71), dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, *small, dtype=torch.float64, generator=generator) * 3
    labels = torch.randint(0, classes, (2, *large), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return logits.to(device, dtype).requires_grad_(), labels.to(device)


def _plain(logits, labels, align_corners=False, ignore_index=255):
    upsampled = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=align_corners)
    loss = F.cross_entropy(upsampled, labels, ignore_index=ignore_index, reduction="sum")
    return loss, (upsampled.argmax(1) == labels).sum()


SIZES = [  # upwards, downwards, the same, from one row or column
    ((7, 9), (50, 71)),
    ((9, 11), (5, 6)),
    ((6, 5), (6, 5)),
    ((1, 3), (9, 11)),
    ((4, 1), (9, 1)),
]


@pytest.mark.parametrize("budget", [None, 1, 20_000])  # blocks of one row, and of several
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("small", "large"), SIZES, ids=str)
def test_equals_the_plain_form_with_gradients(small, large, align_corners, budget, monkeypatch, device):
    if budget is not None:
        module = sys.modules["danseg.ops.upsampled_cross_entropy"]
        monkeypatch.setitem(module._BLOCK_BYTES, device.type, budget)
    logits, labels = _inputs(small=small, large=large, device=device)
    (want, right), (got, correct) = (
        _plain(logits, labels, align_corners),
        upsampled_cross_entropy(logits, labels, align_corners=align_corners),
    )
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert correct == right
    [want_grad], [grad] = (torch.autograd.grad(3 * loss, logits) for loss in (want, got))
    torch.testing.assert_close(grad, want_grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("budget", [None, 1, 20_000])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("small", "large"), SIZES, ids=str)
def test_weights_multiply_each_pixels_loss(small, large, align_corners, budget, monkeypatch, device):
    if budget is not None:
        module = sys.modules["danseg.ops.upsampled_cross_entropy"]
        monkeypatch.setitem(module._BLOCK_BYTES, device.type, budget)
    logits, labels = _inputs(small=small, large=large, device=device)
    weight = torch.rand(labels.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight = weight.to(device)
    weight[labels == 255] = torch.nan  # of an ignored pixel it is not even read
    upsampled = F.interpolate(logits, large, mode="bilinear", align_corners=align_corners)
    losses = F.cross_entropy(upsampled, labels, ignore_index=255, reduction="none")
    want = (losses * weight.nan_to_num(0)).sum()
    got, correct = upsampled_cross_entropy(logits, labels, weight=weight, align_corners=align_corners)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert correct == (upsampled.argmax(1) == labels).sum()
    [want_grad], [grad] = (torch.autograd.grad(3 * loss, logits) for loss in (want, got))
    torch.testing.assert_close(grad, want_grad, rtol=1e-10, atol=1e-12)
    pixels = upsampled_pixel_losses(logits, labels, align_corners=align_corners)
    torch.testing.assert_close(pixels, losses.detach(), rtol=1e-10, atol=1e-12)
    assert not pixels.requires_grad


def test_the_gradient_is_that_of_finite_differences(device):
    logits, labels = _inputs(3, (3, 4), (7, 9), device=device)
    assert torch.autograd.gradcheck(lambda x: upsampled_cross_entropy(x, labels)[0], [logits])


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)]
)
def test_lower_precision_stays_near_float64(dtype, tolerance, device):
    logits, labels = _inputs(dtype=dtype, device=device)
    want, _ = _plain(exact := logits.detach().double().requires_grad_(), labels)
    with torch.autocast(device.type):  # changes nothing: sums are taken in float32
        got, _ = upsampled_cross_entropy(logits, labels)
    assert got.dtype == torch.float32
    assert abs(got.item() / want.item() - 1) < 1e-5  # both sides start from the same rounded logits
    [grad], [want_grad] = torch.autograd.grad(got, logits), torch.autograd.grad(want, exact)
    assert grad.dtype == dtype
    assert (grad.double() - want_grad).abs().max() / want_grad.abs().max() < tolerance


@pytest.mark.parametrize("size", [(0, 9), (8, 0), (0, 0)], ids=str)
def test_labels_without_pixels_give_no_loss(size, device):
    logits, labels = _inputs(large=size, device=device)
    loss, correct = upsampled_cross_entropy(logits, labels)
    assert (loss.item(), correct.item()) == (0, 0)
    assert not torch.autograd.grad(loss, logits)[0].any()
    assert upsampled_pixel_losses(logits, labels).shape == labels.shape


def test_ignored_pixels_count_for_nothing(device):
    logits, labels = _inputs(device=device)
    loss, correct = upsampled_cross_entropy(logits, torch.full_like(labels, 255))
    assert (loss.item(), correct.item()) == (0, 0)
    [grad] = torch.autograd.grad(loss, logits)
    assert not grad.any()
    labels[labels == 255] = -1  # another index, outside the classes as well
    torch.testing.assert_close(
        upsampled_cross_entropy(logits, labels, ignore_index=-1), _plain(logits, labels, ignore_index=-1)
    )


_PEAK = """
import sys, torch
from torch.nn import functional as F
from danseg.ops import upsampled_cross_entropy
from danseg.ops.upsampled_cross_entropy import upsampled_pixel_losses
def plain(logits, labels):
    upsampled = F.interpolate(logits, labels.shape[1:], mode="bilinear")
    return F.cross_entropy(upsampled, labels, ignore_index=255, reduction="sum")
def weighted(logits, labels):
    hard = upsampled_pixel_losses(logits, labels) > 0.5
    return upsampled_cross_entropy(logits, labels, weight=hard.float())[0]
loss = dict(plain=plain, weighted=weighted, danseg=lambda *x: upsampled_cross_entropy(*x)[0])[sys.argv[1]]
logits, labels = torch.randn(1, 19, 64, 64, requires_grad=True), torch.randint(0, 19, (1, 512, 512))
loss(logits[:, :, :8, :8], labels[:, :64, :64]).backward()
print(peak_growth(lambda: loss(logits, labels).backward()))
"""


@pytest.mark.slow
def test_training_memory_is_below_one_copy_of_the_upsampled_logits(extra_peak):
    upsampled = 19 * 512 * 512 * 4
    assert extra_peak(_PEAK, "plain") > 2.5 * upsampled  # the measurement sees the full logits
    assert extra_peak(_PEAK, "danseg") < 0.5 * upsampled
    assert extra_peak(_PEAK, "weighted") < 0.5 * upsampled


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.randn(1, 3, 4, 4), torch.zeros(1, 1, 8, 8).long(), r"\(1, 1, 8, 8\)"),
        (torch.randn(2, 3, 4, 4), torch.zeros(1, 8, 8).long(), r"\(2, 3, 4, 4\)"),
        (torch.randn(1, 3, 4, 4), torch.zeros(1, 8, 8), "float32"),
        (torch.zeros(1, 3, 4, 4).long(), torch.zeros(1, 8, 8).long(), "int64"),
        (torch.randn(1, 3, 4, 4), torch.full((1, 8, 8), 3), "0 to 2.*got 3.*num_classes"),
        (torch.randn(1, 3, 4, 4), torch.full((1, 8, 8), -1), "got -1"),
        (torch.randn(1, 3, 4, 4), torch.full((1, 8, 8), 254, dtype=torch.uint8), "got 254"),
        (torch.randn(1, 3, 4, 4), torch.arange(64).view(1, 8, 8), "got 63"),  # a single one
    ],
)
def test_what_does_not_fit_is_named(logits, labels, message, device):
    logits, labels = logits.to(device), labels.to(device)
    for function in (upsampled_cross_entropy, upsampled_pixel_losses):
        with pytest.raises(ValueError, match=message):
            function(logits, labels)


def test_a_weight_for_each_class_is_refused():
    logits, labels = _inputs()
    with pytest.raises(ValueError, match=r"shape \(2, 50, 71\), got \(5,\).*weights\[labels\]"):
        upsampled_cross_entropy(logits, labels, weight=torch.ones(5))


def test_a_weight_that_would_get_no_gradient_is_refused():
    logits, labels = _inputs()
    with pytest.raises(ValueError, match=r"no gradient; pass weight\.detach\(\)"):
        upsampled_cross_entropy(logits, labels, weight=torch.ones(labels.shape, requires_grad=True))
