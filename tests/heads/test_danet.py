"""DANetHead against mmseg's DAHead with the same weights: logits, losses, gradients, checkpoints."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import DAHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

import danseg  # noqa: F401  (registers DANetHead)

ARGS = dict(in_channels=24, channels=16, pam_channels=4, num_classes=5, norm_cfg=dict(type="BN"))


def _build(**changes) -> nn.Module:
    return MODELS.build(dict(type="DANetHead", **{**ARGS, **changes}))


def _pair(dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """danseg's and mmseg's head with equal weights, scales and batch statistics that are not trivial."""
    torch.manual_seed(0)
    ours, theirs = _build().to(dtype), DAHead(**ARGS).to(dtype)
    theirs.pam.gamma.scale.data.fill_(0.7)
    theirs.cam.gamma.scale.data.fill_(0.3)
    for buffer in theirs.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def _batch(dtype: torch.dtype) -> tuple[list[torch.Tensor], list[SegDataSample]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 24, 9, 13, dtype=torch.float64, generator=generator).to(dtype)
    label = torch.randint(0, 5, (2, 1, 36, 52), generator=generator)
    label[:, :, :3] = 255
    return [x.requires_grad_()], [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in label]


precisions = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])


def _relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


@precisions
def test_logits_equal_mmsegs(dtype, tolerance):
    ours, theirs = _pair(dtype)
    inputs, _ = _batch(dtype)
    assert _relative(ours.eval()(inputs), theirs.eval()(inputs)[0]) < tolerance


@precisions
def test_losses_and_gradients_equal_mmsegs(dtype, tolerance):
    results = []
    for head in _pair(dtype):
        inputs, samples = _batch(dtype)
        torch.manual_seed(2)  # the same dropout
        losses = head.loss(inputs, samples, None)
        sum(value for name, value in losses.items() if "loss" in name).backward()
        grads = {name: parameter.grad for name, parameter in head.named_parameters()}
        results.append((losses, grads, inputs[0].grad))
    (losses, grads, grad), (their_losses, their_grads, their_grad) = results
    assert list(losses) != []
    assert losses.keys() == their_losses.keys()
    assert {"pam_cam.loss_ce", "pam.loss_ce", "cam.loss_ce"} <= losses.keys()
    for name, value in their_losses.items():
        assert _relative(losses[name], value) < tolerance, name
    # mmseg's optimizer states number the parameters, so their order counts as well.
    assert list(grads) == list(their_grads)
    largest = max(g.abs().max() for g in their_grads.values())
    for name, value in their_grads.items():
        # Measured against the largest gradient where the true one is zero (the key's bias).
        scale = largest if name == "pam.key_project.bias" else value.abs().max()
        assert (grads[name] - value).abs().max() / scale < tolerance, name
    assert _relative(grad, their_grad) < tolerance


def test_forward_is_the_classified_feature():
    head = _build().eval()
    inputs, _ = _batch(torch.float32)
    assert torch.equal(head(inputs), head.cls_seg(head._forward_feature(inputs)))


def test_attention_changes_the_logits():
    ours, _ = _pair(torch.float32)
    inputs, _ = _batch(torch.float32)
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
    inputs, _ = _batch(torch.float32)
    head.predict(inputs, [dict(img_shape=(36, 52))], None)
    assert called == ["conv_seg"]


@pytest.mark.parametrize(("with_pam", "with_cam"), [(True, False), (False, True)])
def test_one_branch_alone(with_pam, with_cam):
    head = _build(with_pam=with_pam, with_cam=with_cam)
    names = [name for name, _ in head.named_parameters()]
    assert any(name.startswith("pam") for name in names) == with_pam
    assert any(name.startswith("cam") for name in names) == with_cam
    inputs, samples = _batch(torch.float32)
    losses = head.loss(inputs, samples, None)
    assert set(losses) == {"loss_ce", "acc_seg"}
    losses["loss_ce"].backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_no_branch_is_an_error():
    with pytest.raises(ValueError, match="with_pam=True or with_cam=True"):
        _build(with_pam=False, with_cam=False)


def test_mmsegs_own_head_keeps_its_name():
    assert MODELS.get("DAHead") is DAHead
