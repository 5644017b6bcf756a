"""danseg.heads.loss: which losses avoid full-resolution logits, and that all losses equal mmseg's."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.structures import SegDataSample

import danseg.heads.loss
from danseg.heads import FullyConvolutionalHead

COMMON = dict(in_channels=6, channels=8, num_classes=5, norm_cfg=dict(type="BN"), dropout_ratio=0)
PLAIN = dict(type="CrossEntropyLoss", loss_weight=0.4)


def _samples(ignored: int | None = 3) -> list[SegDataSample]:
    labels = torch.randint(0, 5, (2, 1, 33, 41), generator=torch.Generator().manual_seed(0))
    labels[:, :, :ignored] = 255
    return [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]


def _losses(cls: type, samples: list, **changes) -> tuple[dict, torch.Tensor]:
    torch.manual_seed(0)
    head = cls(**{**COMMON, **changes})
    torch.manual_seed(0)  # the head's layers drew random numbers
    x = torch.randn(2, 6, 9, 11, requires_grad=True)
    losses = head.loss([x], samples, None)
    [grad] = torch.autograd.grad(sum(v for k, v in losses.items() if "loss" in k), x)
    return losses, grad


@pytest.mark.parametrize(
    ("changes", "short"),
    [
        (dict(loss_decode=PLAIN), True),
        (dict(loss_decode={**PLAIN, "avg_non_ignore": True}), True),
        (dict(loss_decode=[PLAIN, {**PLAIN, "loss_name": "loss_two"}, PLAIN]), True),
        (dict(loss_decode=PLAIN, align_corners=True), True),
        (dict(loss_decode={**PLAIN, "reduction": "sum"}), False),
        (dict(loss_decode=[PLAIN, dict(type="DiceLoss")]), False),
        (dict(loss_decode=PLAIN, sampler=dict(type="OHEMPixelSampler", thresh=0.7, min_kept=50)), False),
    ],
    ids=["plain", "counted", "three", "corners", "sum", "dice", "ohem"],
)
def test_losses_accuracy_and_gradient_equal_mmsegs(changes, short, monkeypatch):
    calls = []
    real = danseg.heads.loss.upsampled_cross_entropy
    monkeypatch.setattr(
        danseg.heads.loss, "upsampled_cross_entropy", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    want, want_grad = _losses(FCNHead, _samples(), **changes)
    got, grad = _losses(FullyConvolutionalHead, _samples(), **changes)
    assert bool(calls) is short
    assert list(got) == list(want)
    for name, value in want.items():
        assert got[name].shape == value.shape, name
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad, want_grad, rtol=1e-4, atol=1e-8)


def test_class_weights_go_mmsegs_way():
    weighted = {**PLAIN, "class_weight": [1.0, 2.0, 0.5, 1.0, 3.0]}
    want, want_grad = _losses(FCNHead, _samples(0), loss_decode=weighted)
    got, grad = _losses(FullyConvolutionalHead, _samples(0), loss_decode=weighted)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(grad, want_grad)


def test_nothing_but_ignored_pixels_is_a_loss_of_zero():
    losses, grad = _losses(
        FullyConvolutionalHead, _samples(None), loss_decode={**PLAIN, "avg_non_ignore": True}
    )
    assert losses["loss_ce"].item() == 0
    assert not grad.any()
