"""What a head refuses to be trained with, and that it says so before the training."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models import losses as of_mmseg
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import danseg.heads
from cpu_alone import cpu_alone
from danseg.errors import UserError
from danseg.heads import FullyConvolutionalHead
from danseg.heads.loss_checks import check_losses
from danseg.heads.pixel_losses import PIXEL_LOSSES
from own_test import own_test
from small_head import COMMON

CE = dict(type="CrossEntropyLoss")
BCE = {**CE, "use_sigmoid": True}
LOVASZ = dict(type="LovaszLoss", reduction="none")
OHEM = dict(sampler=dict(type="OHEMPixelSampler", min_kept=10))
ONE = dict(num_classes=2, out_channels=1, threshold=0.5)

REFUSED = [
    ({**CE, "loss_name": "ce"}, {}, "loss_name='ce'.*Only losses.*loss_name='loss_ce'"),
    ({**CE, "reduction": "none"}, {}, "CrossEntropyLoss with reduction='none'.*'mean' or 'sum'"),
    (dict(type="DiceLoss", reduction="none"), {}, "DiceLoss with reduction='none'"),
    (dict(type="LovaszLoss", per_image=True, reduction="none"), {}, "LovaszLoss with reduction='none'"),
    ({**CE, "use_mask": True}, {}, "use_mask=True.*use_sigmoid=True"),
    ({**CE, "class_weight": [1.0, 2.0]}, {}, "2 numbers in class_weight.*out_channels=5; give 5"),
    ({**BCE, "class_weight": [1.0, 2.0]}, {}, "2 numbers in class_weight.*out_channels=5; give 5"),
    ({**BCE, "class_weight": [1.0, 2.0]}, ONE, "2 numbers.*give 1, how much more"),
    (dict(type="FocalLoss", class_weight=[1.0]), {}, "1 numbers in class_weight"),
    (dict(type="FocalLoss", alpha=[0.5, 0.5]), {}, "2 numbers in alpha"),
    (dict(type="TverskyLoss", class_weight=[1.0]), {}, "1 numbers in class_weight"),
    ({**LOVASZ, "class_weight": [1.0]}, {}, "1 numbers in class_weight"),
    (dict(type="DiceLoss", activate=False), {}, "activate=False takes probabilities"),
    (dict(type="BoundaryLoss"), {}, "does not take weight and ignore_index.*PIDNet.*LovaszLoss"),
    (dict(type="OhemCrossEntropy"), {}, "does not take weight and ignore_index.*OHEMPixelSampler"),
    (dict(type="SiLogLoss"), {}, "does not take ignore_index.*depths"),
    (dict(type="HuasdorffDisstanceLoss"), {}, "subtracts class ids.*LovaszLoss"),
    ([CE, dict(type="DiceLoss", loss_name="dice")], {}, "DiceLoss has loss_name='dice'"),
    (dict(type="DiceLoss"), OHEM, "OHEMPixelSampler chooses pixels for CrossEntropyLoss.*not for DiceLoss"),
    ([CE, dict(type="TverskyLoss")], OHEM, "not for TverskyLoss; leave out the sampler or that loss"),
    (BCE, OHEM, "not for CrossEntropyLoss with a sigmoid for each class"),
    (CE, ONE, "softmax of one output channel trains nothing; set use_sigmoid=True"),
    (CE, dict(num_classes=1), "softmax of one output channel trains nothing; set use_sigmoid=True"),
    (dict(type="DiceLoss", use_sigmoid=False), ONE, "DiceLoss over a softmax of one output channel"),
    (LOVASZ, ONE, "set loss_type='binary'"),
    ({**LOVASZ, "loss_type": "binary"}, {}, "needs out_channels=1, got 5; set loss_type='multi_class'"),
    ({**LOVASZ, "loss_type": "binary", "class_weight": [2.0]}, ONE, "does not read class_weight"),
    (dict(type="TverskyLoss"), ONE, "TverskyLoss over a softmax of one output channel"),
    (BCE, {**ONE, "num_classes": 5}, "2 classes apart, not num_classes=5; leave out out_channels=1"),
    (BCE, {**ONE, "threshold": 127}, "threshold=127 is no probability.*such as 0.5"),
    (CE, dict(ignore_index=None), "ignore_index=None is no label.*255"),
]


@pytest.mark.parametrize(("loss", "changes", "message"), REFUSED, ids=[one[2] for one in REFUSED])
def test_what_cannot_be_trained_is_refused_before_the_training(loss, changes, message):
    head = FullyConvolutionalHead(**{**COMMON, "loss_decode": loss, **changes})
    with pytest.raises(UserError, match=f"^FullyConvolutionalHead: .*{message}"):
        head.init_weights()  # which every runner calls before it trains
    with pytest.raises(UserError, match=message):  # and a loop without a runner sees at its first step
        head.loss_by_feat(torch.randn(1, head.out_channels, 4, 4), [])


LOSSES = [
    name for name, one in vars(of_mmseg).items() if isinstance(one, type) and issubclass(one, torch.nn.Module)
]


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"Accuracy"}))
def test_every_loss_of_mmseg_is_computed_or_refused(name):
    arguments = dict(reduction="none") if name == "LovaszLoss" else {}
    head = FullyConvolutionalHead(**COMMON, loss_decode=dict(type=name, **arguments))
    if getattr(of_mmseg, name) in PIXEL_LOSSES:
        check_losses(head)
    else:
        with pytest.raises(UserError, match=name):
            check_losses(head)


class OwnLoss(torch.nn.Module):
    """A loss of the user's, as mmseg's heads call it."""

    loss_name = "loss_own"

    def forward(self, logits, labels, weight=None, ignore_index=255):
        return logits.sum() * 0


class LacksKeywords(OwnLoss):
    def forward(self, logits, labels):
        return logits.sum() * 0


def test_a_loss_of_the_users_own_has_to_take_what_heads_pass():
    FullyConvolutionalHead(**COMMON, loss_decode=dict(type=OwnLoss)).init_weights()
    head = FullyConvolutionalHead(**COMMON, loss_decode=dict(type=LacksKeywords))
    with pytest.raises(UserError, match=r"LacksKeywords does not take weight and ignore_index.*\*\*kwargs"):
        head.init_weights()


SIGMOID = dict(loss_decode=BCE, num_classes=2, out_channels=1, threshold=0.6)
TRAINED = {
    "weighted": dict(loss_decode={**CE, "class_weight": [1.0, 2.0, 0.5, 1.0, 3.0], "avg_non_ignore": True}),
    "ohem": dict(loss_decode=CE, **OHEM),
    "focal and dice": dict(loss_decode=[dict(type="FocalLoss"), dict(type="DiceLoss", use_sigmoid=False)]),
    "lovasz and tversky": dict(loss_decode=[LOVASZ, dict(type="TverskyLoss")]),
    "sigmoid": SIGMOID,
    "sigmoid ohem": {**SIGMOID, **OHEM},
}


HEADS = sorted(danseg.heads.__all__)
#: Each head with each, of which a GPU takes each head and each loss at least once.
EVERY = [
    (name, loss) if (i - j) % len(TRAINED) == 0 else cpu_alone(name, loss)
    for i, name in enumerate(HEADS)
    for j, loss in enumerate(TRAINED)
]


@pytest.mark.parametrize(("name", "loss"), EVERY)
def test_every_head_trains_with_them_and_ignored_pixels_get_no_gradient(name, loss, device):
    torch.manual_seed(0)
    own = own_test(getattr(danseg.heads, name)).ARGS
    head = MODELS.build(dict(type=name, **{**COMMON, **own, **TRAINED[loss]}))
    head.init_weights()
    made = []
    for key, module in head.named_modules():
        if key.endswith("conv_seg"):
            torch.nn.init.normal_(module.weight)
            module.register_forward_hook(lambda _, __, out: made.append(out) or out.retain_grad())
    labels = torch.randint(0, head.num_classes, (2, 1, 9, 13))
    labels[:, :, :3] = 255
    x, labels = torch.randn(2, 24, 9, 13).to(device), labels.to(device)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in labels]
    losses = head.to(device).loss([x], samples, None)
    sum(value for key, value in losses.items() if "loss" in key).backward()
    accuracies = [value.item() for key, value in losses.items() if key.endswith("acc_seg")]
    assert len(made) == len(accuracies) >= 1
    for logits in made:
        assert logits.grad[:, :, 3:].any() and not logits.grad[:, :, :3].any()
    if head.out_channels == 1:
        right = [((out.sigmoid() > 0.6) == labels)[:, :, 3:].float().mean().item() * 100 for out in made]
        assert sorted(accuracies) == pytest.approx(sorted(right), rel=1e-5)
