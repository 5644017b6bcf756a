"""danseg.heads.loss: mmseg's cross entropy and hard pixels without full-resolution logits; the accuracy."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import TASK_UTILS
from mmseg.structures import BasePixelSampler, SegDataSample
from torch.nn import functional as F

import danseg.heads.loss
from cpu_alone import one_on_gpu
from danseg.heads import FullyConvolutionalHead

Device = str | torch.device
COMMON = dict(in_channels=6, channels=8, num_classes=5, norm_cfg=dict(type="BN"), dropout_ratio=0)
PLAIN = dict(type="CrossEntropyLoss", loss_weight=0.4)


def _samples(device: Device, ignored: int | None = 3, classes: int = 5) -> list[SegDataSample]:
    labels = torch.randint(0, classes, (2, 1, 33, 41), generator=torch.Generator().manual_seed(0))
    labels[:, :, :ignored] = 255
    return [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels.to(device)]


def _losses(cls: type, samples: list, **changes) -> tuple[dict, torch.Tensor]:
    device = samples[0].gt_sem_seg.data.device
    torch.manual_seed(0)
    head = cls(**{**COMMON, **changes}).double()
    torch.nn.init.normal_(head.conv_seg.weight)
    x = torch.randn(2, 6, 9, 11, dtype=torch.float64).to(device).requires_grad_()
    head.to(device)
    losses = head.loss([x], samples, None)
    [grad] = torch.autograd.grad(sum(v for k, v in losses.items() if "loss" in k), x)
    return losses, grad


WEIGHTS = [1.0, 2.0, 0.5, 1.0, 3.0]
OHEM = dict(type="OHEMPixelSampler", min_kept=200)


@pytest.fixture
def resized(monkeypatch) -> list:
    """How often danseg resized logits to the labels' size."""
    calls = []
    real = danseg.heads.loss.resize
    monkeypatch.setattr(danseg.heads.loss, "resize", lambda *a, **k: calls.append(1) or real(*a, **k))
    return calls


@pytest.mark.parametrize(
    "changes",
    [
        dict(loss_decode=PLAIN),
        dict(loss_decode={**PLAIN, "avg_non_ignore": True}),
        dict(loss_decode=[PLAIN, {**PLAIN, "loss_name": "loss_two"}, PLAIN]),
        dict(loss_decode=PLAIN, align_corners=True),
        dict(loss_decode={**PLAIN, "reduction": "sum"}),
        dict(loss_decode=PLAIN, sampler={**OHEM, "thresh": 0.7}),
        dict(loss_decode=PLAIN, sampler={**OHEM, "thresh": 0.01}),  # too low: the hardest are taken
        dict(loss_decode=PLAIN, sampler={**OHEM, "thresh": 0.7, "min_kept": 10**6}),  # more than there are
        dict(loss_decode=PLAIN, sampler=OHEM),
        dict(loss_decode={**PLAIN, "avg_non_ignore": True}, sampler=OHEM),
        dict(loss_decode={**PLAIN, "reduction": "sum"}, sampler=OHEM),
        dict(loss_decode=PLAIN, sampler={**OHEM, "min_kept": 10**6}),
    ],
    ids=str,
)
def test_losses_accuracy_and_gradient_equal_mmsegs(changes, resized, device):
    want, want_grad = _losses(FCNHead, _samples(device), **changes)
    got, grad = _losses(FullyConvolutionalHead, _samples(device), **changes)
    assert not resized
    assert list(got) == list(want)
    for name, value in want.items():
        assert got[name].shape == value.shape, name
        torch.testing.assert_close(got[name], value.to(got[name].dtype), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(grad, want_grad, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("sampler", [None, OHEM, {**OHEM, "thresh": 0.5}], ids=str)
@pytest.mark.parametrize("changes", [{}, dict(reduction="sum")], ids=str)
def test_class_weights_equal_mmsegs_where_it_can_apply_them(changes, sampler, resized, device):
    # mmseg 1.2.2 fails with ignored pixels, 1.4.2 with avg_non_ignore.
    weighted = dict(loss_decode={**PLAIN, "class_weight": WEIGHTS, **changes}, sampler=sampler)
    want, want_grad = _losses(FCNHead, _samples(device, 0), **weighted)
    got, grad = _losses(FullyConvolutionalHead, _samples(device, 0), **weighted)
    assert not resized
    torch.testing.assert_close(got["loss_ce"], want["loss_ce"], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(grad, want_grad, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("avg_non_ignore", [False, True])
def test_weights_of_classes_average_over_the_weights_of_the_pixels_that_count(
    avg_non_ignore, resized, device
):
    weighted = {**PLAIN, "class_weight": WEIGHTS, "avg_non_ignore": avg_non_ignore}
    logits = torch.randn(2, 5, 9, 11, dtype=torch.float64).to(device).requires_grad_()
    samples = _samples(device)
    got = FullyConvolutionalHead(**COMMON, loss_decode=weighted).loss_by_feat(logits, samples)["loss_ce"]
    assert not resized
    upsampled = F.interpolate(logits, (33, 41), mode="bilinear")
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    weights = torch.tensor(WEIGHTS, dtype=torch.float64, device=device)
    want = 0.4 * F.cross_entropy(upsampled, labels, weights, ignore_index=255)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0)
    [grad], [want_grad] = (torch.autograd.grad(each, logits) for each in (got, want))
    torch.testing.assert_close(grad, want_grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("class_weight", [None, WEIGHTS])
@pytest.mark.parametrize("avg_non_ignore", [False, True])
@pytest.mark.parametrize("sampler", [None, OHEM, {**OHEM, "thresh": 0.7}], ids=str)
def test_nothing_but_ignored_pixels_is_a_loss_of_zero(class_weight, avg_non_ignore, sampler, device):
    loss = {**PLAIN, "avg_non_ignore": avg_non_ignore, "class_weight": class_weight}
    losses, grad = _losses(FullyConvolutionalHead, _samples(device, None), loss_decode=loss, sampler=sampler)
    assert losses["loss_ce"].item() == 0
    assert not grad.any()


@TASK_UTILS.register_module()
class EveryOtherRow(BasePixelSampler):
    """A user's own sampler, which sees logits at the labels' resolution."""

    def __init__(self, context):
        super().__init__()

    def sample(self, seg_logit, seg_label):
        weight = torch.ones_like(seg_logit[:, 0])
        weight[:, ::2] = 0
        return weight


class Focused(CrossEntropyLoss):
    """A user's own loss."""


def test_a_sampler_and_a_loss_of_the_users_own_go_as_in_mmseg(device):
    own = [PLAIN, dict(type=Focused, loss_name="loss_own")]
    changes = dict(loss_decode=own, sampler=dict(type="EveryOtherRow"))
    (want, want_grad), (got, grad) = (
        _losses(cls, _samples(device), **changes) for cls in (FCNHead, FullyConvolutionalHead)
    )
    for name, value in want.items():
        torch.testing.assert_close(got[name], value.to(got[name].dtype), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(grad, want_grad, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("class_weight", [None, [3.0]])
@pytest.mark.parametrize("sampler", [None, OHEM], ids=str)
@pytest.mark.parametrize("changes", [{}, dict(avg_non_ignore=True), dict(reduction="sum")], ids=str)
def test_one_channels_sigmoid_equals_mmsegs(changes, sampler, class_weight, resized, device):
    head = dict(
        num_classes=2,
        out_channels=1,
        loss_decode={**PLAIN, "use_sigmoid": True, "class_weight": class_weight, **changes},
        sampler=sampler,
    )
    (want, want_grad), (got, grad) = (
        _losses(cls, _samples(device, classes=2), **head) for cls in (FCNHead, FullyConvolutionalHead)
    )
    assert not resized
    torch.testing.assert_close(got["loss_ce"], want["loss_ce"].double(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(grad, want_grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_the_accuracy_of_one_channel_is_that_of_its_threshold(threshold, device):
    head = FullyConvolutionalHead(
        **{**COMMON, "num_classes": 2},
        out_channels=1,
        threshold=threshold,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=True),
    )
    logits = (torch.randn(2, 1, 9, 11, dtype=torch.float64) * 2).to(device)
    samples = _samples(device, classes=2)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    right = (F.interpolate(logits, (33, 41), mode="bilinear")[:, 0].sigmoid() > threshold) == labels
    accuracy = head.loss_by_feat(logits, samples)["acc_seg"]
    assert accuracy.item() == pytest.approx(100 * right[labels != 255].float().mean().item(), rel=1e-5)


def test_the_accuracy_of_a_sigmoid_for_each_class_is_that_of_the_largest(device):
    loss = dict(type="CrossEntropyLoss", use_sigmoid=True)
    want, _ = _losses(FCNHead, _samples(device), loss_decode=loss)
    got, _ = _losses(FullyConvolutionalHead, _samples(device), loss_decode=loss)
    torch.testing.assert_close(got["acc_seg"], want["acc_seg"].float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "sampler", [None, OHEM, {**OHEM, "thresh": 0.7}, dict(type="EveryOtherRow")], ids=str
)
@pytest.mark.parametrize(
    "loss", [PLAIN, {**PLAIN, "class_weight": WEIGHTS}, dict(type=Focused, loss_name="loss_own")], ids=str
)
@pytest.mark.parametrize("wrong", one_on_gpu([5, -1]))
def test_a_label_that_is_no_class_reaches_no_sampler_and_no_loss(loss, sampler, wrong, device):
    samples = _samples(device)
    samples[0].gt_sem_seg.data[0, 9, 9] = wrong
    with pytest.raises(ValueError, match=f"from 0 to 4 or ignore_index, got {wrong}; num_classes must match"):
        _losses(FullyConvolutionalHead, samples, loss_decode=loss, sampler=sampler)
    losses, _ = _losses(FullyConvolutionalHead, _samples(device), loss_decode=loss, sampler=sampler)
    assert losses["acc_seg"].isfinite().all(), "CUDA works on"
