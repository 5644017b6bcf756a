"""mmseg's losses through a head, against their papers' equations over the pixels that count, in float64."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn import functional as F

from danseg.heads import FullyConvolutionalHead
from deterministic import deterministic

CLASSES, SIZE = 3, (6, 7)
WEIGHTS = [0.5, 2.0, 3.0]
ONE = dict(num_classes=2, out_channels=1, threshold=0.4)


def one_hot(z: Tensor, y: Tensor) -> Tensor:
    return torch.stack([(y == c).to(z) for c in ([1] if z.shape[1] == 1 else range(z.shape[1]))], 1)


def sigmoid_cross_entropy(z, y, weights=None):
    positive = torch.ones(z.shape[1]).to(z) if weights is None else z.new_tensor(weights)
    p, t = z.sigmoid(), one_hot(z, y)
    return -(positive * t * p.log() + (1 - t) * (1 - p).log())


def dice(z, y, sigmoid=True, naive=False, eps=1e-3):
    p, t = z.sigmoid() if sigmoid else z.softmax(1), one_hot(z, y)
    if naive:
        return 1 - (2 * (p * t).sum() + eps) / (p.sum() + t.sum() + eps)
    return 1 - 2 * (p * t).sum() / ((p**2).sum() + (t**2).sum() + 2 * eps)


def focal(z, y, gamma=2.0, alpha=0.5, weights=1.0):
    p, t, alpha = z.sigmoid(), one_hot(z, y), torch.tensor(alpha, dtype=z.dtype)
    of_label = -alpha * (1 - p) ** gamma * p.log()
    of_other = -(1 - alpha) * p**gamma * (1 - p).log()
    return torch.tensor(weights, dtype=z.dtype) * (t * of_label + (1 - t) * of_other)


def lovasz_extension(errors: Tensor, foreground: Tensor) -> Tensor:
    """The errors, largest first, each times what it adds to the Jaccard loss of those before it."""
    total, wrong, before = 0, set(), 0.0
    members = set(foreground.nonzero().flatten().tolist())
    for i in errors.argsort(descending=True).tolist():
        wrong.add(i)
        now = len(wrong) / len(members | wrong)
        total, before = total + errors[i] * (now - before), now
    return total


def lovasz_softmax(z, y, weights=None, classes=None):
    weights = weights or [1.0] * z.shape[1]
    classes = y.unique().tolist() if classes is None else classes
    p = z.softmax(1)
    found = [weights[c] * lovasz_extension(((y == c).to(z) - p[:, c]).abs(), y == c) for c in classes]
    return sum(found) / len(classes)


def lovasz_hinge(z, y):
    return lovasz_extension((1 - z[:, 0] * (2 * y - 1)).relu(), y == 1)


def tversky(z, y, alpha=0.3, beta=0.7, smooth=1.0, weights=None):
    p, t = z.softmax(1), one_hot(z, y)
    hit, false, missed = (p * t).sum(0), (p * (1 - t)).sum(0), ((1 - p) * t).sum(0)
    index = (hit + smooth) / (hit + alpha * false + beta * missed + smooth)
    return ((1 - index) * z.new_tensor(weights or [1.0] * z.shape[1])).mean()


def pixels(loss: Tensor, counted: int, everything: int) -> Tensor:
    return loss.mean()


def all_pixels(loss: Tensor, counted: int, everything: int) -> Tensor:
    return loss.mean() * counted / everything


BCE = dict(type="CrossEntropyLoss", use_sigmoid=True)
LOVASZ = dict(type="LovaszLoss", reduction="none")
IMAGES = "images"  # averaged over the images in which a pixel counts

# config of the loss, its equation over (n, C) logits and (n,) labels, how that becomes one number
CASES = {
    "sigmoid": (BCE, sigmoid_cross_entropy, all_pixels),
    "sigmoid counted": ({**BCE, "avg_non_ignore": True}, sigmoid_cross_entropy, pixels),
    "sigmoid weighted": (
        {**BCE, "avg_non_ignore": True, "class_weight": WEIGHTS},
        lambda z, y: sigmoid_cross_entropy(z, y, WEIGHTS),
        pixels,
    ),
    "sigmoid sum": ({**BCE, "reduction": "sum"}, lambda z, y: sigmoid_cross_entropy(z, y).sum(), pixels),
    "dice": (dict(type="DiceLoss"), dice, IMAGES),
    "dice softmax": (dict(type="DiceLoss", use_sigmoid=False), lambda z, y: dice(z, y, False), IMAGES),
    "dice naive": (dict(type="DiceLoss", naive_dice=True), lambda z, y: dice(z, y, naive=True), IMAGES),
    "focal": (dict(type="FocalLoss"), focal, pixels),
    "focal weighted": (
        dict(type="FocalLoss", gamma=1.5, alpha=[0.2, 0.5, 0.9], class_weight=WEIGHTS),
        lambda z, y: focal(z, y, 1.5, [0.2, 0.5, 0.9], WEIGHTS),
        pixels,
    ),
    "focal sum": (dict(type="FocalLoss", reduction="sum"), lambda z, y: focal(z, y).sum(), pixels),
    "lovasz": (LOVASZ, lovasz_softmax, pixels),
    "lovasz weighted": (
        {**LOVASZ, "class_weight": WEIGHTS},
        lambda z, y: lovasz_softmax(z, y, WEIGHTS),
        pixels,
    ),
    "lovasz images": (dict(type="LovaszLoss", per_image=True), lovasz_softmax, IMAGES),
    "lovasz all": (
        dict(type="LovaszLoss", per_image=True, classes="all"),
        lambda z, y: lovasz_softmax(z, y, classes=range(CLASSES)),
        IMAGES,
    ),
    "tversky": (dict(type="TverskyLoss"), tversky, IMAGES),
    "tversky weighted": (
        dict(type="TverskyLoss", alpha=0.6, beta=0.4, class_weight=WEIGHTS),
        lambda z, y: tversky(z, y, 0.6, 0.4, weights=WEIGHTS),
        IMAGES,
    ),
}
ONE_CHANNEL = {
    "sigmoid": (BCE, sigmoid_cross_entropy, all_pixels),
    "sigmoid weighted": (
        {**BCE, "avg_non_ignore": True, "class_weight": [3.0]},
        lambda z, y: sigmoid_cross_entropy(z, y, [3.0]),
        pixels,
    ),
    "dice": (dict(type="DiceLoss"), dice, IMAGES),
    "focal": (dict(type="FocalLoss", alpha=0.3), lambda z, y: focal(z, y, alpha=0.3), pixels),
    "lovasz": ({**LOVASZ, "loss_type": "binary"}, lovasz_hinge, pixels),
    "lovasz images": (dict(type="LovaszLoss", loss_type="binary", per_image=True), lovasz_hinge, IMAGES),
}
EVERY = [(name, *case, dict(num_classes=CLASSES)) for name, case in CASES.items()]
EVERY += [(f"{name}, one channel", *case, ONE) for name, case in ONE_CHANNEL.items()]


def batch(classes: int) -> Tensor:
    """Labels (3, H, W) of an image with some ignored pixels, one with a single other pixel, one with none."""
    labels = torch.randint(0, classes, (3, *SIZE), generator=torch.Generator().manual_seed(3))
    labels[0, :2] = 255
    labels[1].view(-1)[1:] = 255
    labels[2] = 255
    return labels


def through_head(loss: dict, logits: Tensor, labels: Tensor, **head) -> dict:
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in labels]
    built = FullyConvolutionalHead(
        in_channels=4, channels=4, loss_decode=loss, norm_cfg=dict(type="BN"), **head
    )
    return built.loss_by_feat(logits, samples)


def written_out(equation, reduce, logits: Tensor, labels: Tensor) -> Tensor:
    flat = [(z.flatten(1).T[(y != 255).flatten()], y[y != 255]) for z, y in zip(logits, labels, strict=True)]
    flat = [(z, y) for z, y in flat if len(y)]
    if reduce is IMAGES:
        return sum(equation(z, y) for z, y in flat) / len(flat)
    z, y = (torch.cat(each) for each in zip(*flat, strict=True))
    return reduce(equation(z, y), len(y), labels.numel())


@pytest.mark.parametrize(("name", "loss", "equation", "reduce", "head"), EVERY, ids=[one[0] for one in EVERY])
def test_is_its_equation_over_the_pixels_that_count(name, loss, equation, reduce, head, device):
    labels = batch(head["num_classes"])
    shape = (3, head.get("out_channels", CLASSES), *SIZE)
    logits = torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4)
    ).requires_grad_()
    on_device = logits.to(device), labels.to(device)
    [(key, got), _] = through_head({**loss, "loss_weight": 0.4}, *on_device, **head).items()
    assert "loss" in key and got.dim() == 0 and got.device.type == device.type
    got = got.cpu()
    want = 0.4 * written_out(equation, reduce, logits, labels)
    in_float32 = "lovasz" in name or "dice" in name  # mmseg's code computes parts of them in float32
    tolerance = dict(rtol=1e-6, atol=1e-7) if in_float32 else dict(rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(got, want, **tolerance)
    [grad], [want_grad] = (torch.autograd.grad(each, logits) for each in (got, want))
    torch.testing.assert_close(grad, want_grad, **tolerance)
    assert want_grad.any() and not grad.movedim(1, -1)[labels == 255].any()


@pytest.mark.parametrize(("name", "loss", "equation", "reduce", "head"), EVERY, ids=[one[0] for one in EVERY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_pixel_that_counts_it_is_zero(name, loss, equation, reduce, head, dtype, device):
    logits = torch.randn(3, head.get("out_channels", CLASSES), *SIZE, dtype=dtype).to(device).requires_grad_()
    [(_, got), _] = through_head(loss, logits, torch.full((3, *SIZE), 255, device=device), **head).items()
    assert got.item() == 0
    [grad] = torch.autograd.grad(got, logits)
    assert not grad.any() and grad.isfinite().all()


OHEM = dict(type="OHEMPixelSampler", min_kept=20)
OF_PIXELS = [
    ("softmax", dict(type="CrossEntropyLoss"), dict(num_classes=CLASSES)),
    ("weighted", dict(type="CrossEntropyLoss", class_weight=WEIGHTS), dict(num_classes=CLASSES)),
    ("ohem", dict(type="CrossEntropyLoss"), dict(num_classes=CLASSES, sampler=OHEM)),
    (
        "ohem, threshold",
        dict(type="CrossEntropyLoss"),
        dict(num_classes=CLASSES, sampler={**OHEM, "thresh": 0.7}),
    ),
]


@pytest.mark.parametrize(
    ("name", "loss", "head"),
    [*OF_PIXELS, *((name, loss, head) for name, loss, _, _, head in EVERY)],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_gradient_repeats_to_the_bit_or_pytorch_names_what_cannot(name, loss, head, device):
    def gradient() -> Tensor:
        [(_, value), _] = through_head(loss, logits, labels, **head).items()
        return torch.autograd.grad(value, logits)[0]

    labels = batch(head["num_classes"]).to(device)
    logits = torch.randn(3, head.get("out_channels", CLASSES), 3, 4).to(device).requires_grad_()
    in_order = device.type == "cuda" and loss["type"] == "LovaszLoss"  # sums in the order of the errors
    with deterministic(refused="cumsum" if in_order else None):
        assert torch.equal(gradient(), gradient())


def test_two_losses_are_named_apart_and_summed_where_they_share_a_name():
    logits, labels = torch.randn(3, CLASSES, *SIZE, dtype=torch.float64), batch(CLASSES)
    both = [dict(type="CrossEntropyLoss", avg_non_ignore=True), dict(type="DiceLoss", loss_weight=3.0)]
    found = through_head(both, logits, labels, num_classes=CLASSES)
    assert list(found) == ["loss_ce", "loss_dice", "acc_seg"]
    want = F.cross_entropy(logits, labels, ignore_index=255)
    torch.testing.assert_close(found["loss_ce"], want, rtol=1e-8, atol=0)
    torch.testing.assert_close(found["loss_dice"], 3 * written_out(dice, IMAGES, logits, labels))
    for one in both:
        one["loss_name"] = "loss_both"
    [(name, total), _] = through_head(both, logits, labels, num_classes=CLASSES).items()
    assert name == "loss_both"
    torch.testing.assert_close(total, found["loss_ce"] + found["loss_dice"])


def test_focal_loss_is_built_on_a_machine_with_a_gpu_without_mmcvs_operators(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    MODELS.build(dict(type="FocalLoss"))


def test_focal_loss_trains_on_the_device_without_mmcvs_operators(device):
    logits = torch.randn(3, CLASSES, *SIZE).to(device).requires_grad_()
    losses = through_head(dict(type="FocalLoss"), logits, batch(CLASSES).to(device), num_classes=CLASSES)
    losses["loss_focal"].backward()
    assert logits.grad.isfinite().all() and logits.grad.any()


@pytest.mark.parametrize(("name", "loss", "equation", "reduce", "head"), EVERY, ids=[one[0] for one in EVERY])
@pytest.mark.parametrize("wrong", [9, -1])
def test_a_label_that_is_no_class_is_named(name, loss, equation, reduce, head, wrong, device):
    labels = batch(head["num_classes"]).to(device)
    labels[0, 3, 3] = wrong
    logits = torch.randn(3, head.get("out_channels", CLASSES), *SIZE).to(device)
    allowed = rf"from 0 to {head['num_classes'] - 1} or ignore_index, got {wrong}; num_classes must match"
    with pytest.raises(ValueError, match=allowed):
        through_head(loss, logits, labels, **head)
    assert logits.sum().isfinite(), "CUDA works on"
