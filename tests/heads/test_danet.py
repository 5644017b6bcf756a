"""DANetHead beyond tests/heads/test_contract.py: its branches, its classifiers, its ablations."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import DAHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

import danseg  # noqa: F401  (registers DANetHead)
from small_head import COMMON

ARGS = dict(pam_channels=4)
ZERO_GRADIENT = ["pam.key_project.bias"]  # the softmax cancels it


def counterpart() -> nn.Module:
    return DAHead(**COMMON, **ARGS)


def _build(**changes) -> nn.Module:
    return MODELS.build(dict(type="DANetHead", **{**COMMON, **ARGS, **changes}))


def _batch(device: str | torch.device = "cpu") -> tuple[list[torch.Tensor], list[SegDataSample]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 24, 9, 13, generator=generator)
    label = torch.randint(0, 5, (2, 1, 36, 52), generator=generator)
    return [x.to(device)], [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in label.to(device)]


def test_losses_of_three_classifiers_are_named_as_mmsegs():
    losses = _build().loss(*_batch(), None)
    assert {"pam_cam.loss_ce", "pam.loss_ce", "cam.loss_ce"} <= losses.keys()


def test_attention_changes_the_logits():
    ours = _build()
    ours.pam.gamma.scale.data.fill_(0.7)
    ours.cam.gamma.scale.data.fill_(0.3)
    inputs, _ = _batch()
    with_attention = ours.eval()(inputs)
    for scale in (ours.pam.gamma.scale, ours.cam.gamma.scale):
        kept = scale.data.clone()
        scale.data.zero_()
        assert not torch.allclose(ours(inputs), with_attention, atol=1e-4)
        scale.data.copy_(kept)


def test_only_the_fused_classifier_runs_at_test_time():
    head = _build().eval()
    called = []
    for name in ("pam_conv_seg", "cam_conv_seg", "conv_seg"):
        getattr(head, name).register_forward_hook(lambda *_, name=name: called.append(name))
    inputs, _ = _batch()
    head.predict(inputs, [dict(img_shape=(36, 52))], None)
    assert called == ["conv_seg"]


@pytest.mark.parametrize(("with_pam", "with_cam"), [(True, False), (False, True)])
def test_one_branch_alone(with_pam, with_cam, device):
    head = _build(with_pam=with_pam, with_cam=with_cam).to(device)
    names = [name for name, _ in head.named_parameters()]
    assert any(name.startswith("pam") for name in names) == with_pam
    assert any(name.startswith("cam") for name in names) == with_cam
    inputs, samples = _batch(device)
    losses = head.loss(inputs, samples, None)
    assert set(losses) == {"loss_ce", "acc_seg"}
    losses["loss_ce"].backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_no_branch_is_an_error():
    with pytest.raises(ValueError, match="with_pam=True or with_cam=True"):
        _build(with_pam=False, with_cam=False)


def test_mmsegs_own_head_keeps_its_name():
    assert MODELS.get("DAHead") is DAHead
