"""What every head promises, checked over all of ``danseg.heads.__all__``.

What only a head's author knows stands in its own test file, ``tests/heads/test_STEM.py``:

* ``ARGS``, the head's own arguments beside :data:`small_head.COMMON`;
* ``counterpart()`` where mmseg has the network: mmseg's head with ``COMMON | ARGS``;
* ``ZERO_GRADIENT``, where there are any: parameters whose true gradient is zero;
* ``NEEDED``, where there is any: what a switch that is on needs beside itself;
* ``WITHOUT_ATTENTION = True`` for a baseline.
"""

import re

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

import danseg.heads
from own_test import own_test
from small_head import COMMON
from variants import one_by_one, switches

HEADS = {name: getattr(danseg.heads, name) for name in danseg.heads.__all__}


def draw(head: nn.Module) -> None:
    """Draw at random the parameters that start at zero, and the batch statistics."""
    generator = torch.Generator().manual_seed(5)
    for parameter in head.parameters():
        if not parameter.any():
            drawn = torch.randn(parameter.shape, generator=generator) * 0.3 + 0.5
            parameter.data.copy_(drawn if parameter.dim() else torch.tensor(0.7))
    for buffer in head.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)


def plain(name: str, **arguments) -> nn.Module:
    return MODELS.build({"type": name, **COMMON, **own_test(HEADS[name]).ARGS, **arguments})


def build(name: str, dtype: torch.dtype = torch.float32, **arguments) -> nn.Module:
    torch.manual_seed(0)
    head = plain(name, **arguments)
    draw(head)
    return head.to(dtype)


def batch(dtype: torch.dtype, size: tuple[int, int] = (9, 13)) -> tuple[list, list[SegDataSample]]:
    """Features of a backbone that ends in 24 channels, and labels at four times their size."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 24, *size, dtype=torch.float64, generator=generator).to(dtype)
    label = torch.randint(0, 5, (2, 1, 4 * size[0], 4 * size[1]), generator=generator)
    label[:, :, :3] = 255
    return [x.requires_grad_()], [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in label]


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


every_head = pytest.mark.parametrize("name", sorted(HEADS))
every_pair = pytest.mark.parametrize(
    "name", [n for n in sorted(HEADS) if hasattr(own_test(HEADS[n]), "counterpart")]
)
precisions = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])


def test_there_are_heads_and_pairs():
    assert len(HEADS) >= 2
    assert len([name for name in HEADS if hasattr(own_test(HEADS[name]), "counterpart")]) >= 1


@every_head
def test_is_a_decode_head_under_a_name_of_its_own(name):
    assert MODELS.get(name) is HEADS[name]
    assert issubclass(HEADS[name], BaseDecodeHead)
    import mmseg.models.decode_heads as theirs

    assert not hasattr(theirs, name)


@every_head
def test_forward_is_the_classified_feature(name):
    head = build(name).eval()
    inputs, _ = batch(torch.float32)
    assert torch.equal(head(inputs), head.cls_seg(head._forward_feature(inputs)))


@pytest.mark.parametrize(
    "name", [n for n in sorted(HEADS) if not getattr(own_test(HEADS[n]), "WITHOUT_ATTENTION", False)]
)
def test_every_position_reaches_every_other(name):
    # Convolutions alone reach a few positions; only attention carries a change across the map.
    head = build(name, torch.float64).eval()
    inputs, _ = batch(torch.float64, size=(23, 31))
    changed = inputs[0].detach().clone()
    changed[:, :, 0, 0] += 5
    with torch.no_grad():
        far = (head([changed]) - head(inputs))[:, :, -4:, -4:]
    assert far.abs().amax() > 1e-8


@every_head
def test_loss_trains_every_parameter(name):
    head = build(name)
    inputs, samples = batch(torch.float32)
    losses = head.loss(inputs, samples, None)
    sum(value for key, value in losses.items() if "loss" in key).backward()
    assert inputs[0].grad.abs().sum() > 0
    assert not [key for key, parameter in head.named_parameters() if parameter.grad is None]


def variants(name: str) -> list[dict]:
    """Keyword arguments for each of the head's modes and switches."""
    needed = getattr(own_test(HEADS[name]), "NEEDED", {})
    found = one_by_one(switches(HEADS[name], lambda **arguments: plain(name, **arguments)))
    return [arguments | needed.get(next(iter(arguments), None), {}) for arguments in found]


VARIANTS = [(name, arguments) for name in sorted(HEADS) for arguments in variants(name)]


@pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=str)
@pytest.mark.parametrize("way", ["cast", "autocast"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_every_mode_trains_in_16_bits(name, arguments, way, dtype, tolerance):
    losses = []
    for narrow in (False, True):
        head = build(name, dtype if narrow and way == "cast" else torch.float32, **arguments)
        inputs, samples = batch(next(head.parameters()).dtype)
        torch.manual_seed(2)  # the same dropout
        with torch.autocast("cpu", dtype, enabled=narrow and way == "autocast"):
            found = head.loss(inputs, samples, None)
        sum(value for key, value in found.items() if "loss" in key).backward()
        assert inputs[0].grad.isfinite().all()
        assert not [k for k, p in head.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        losses.append({key: value.item() for key, value in found.items() if "loss" in key})
    assert losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)


def pair(name: str, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """danseg's and mmseg's head with equal weights, which have gone both ways."""
    ours, theirs = build(name, dtype), own_test(HEADS[name]).counterpart().to(dtype)
    draw(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@every_pair
@precisions
def test_logits_equal_mmsegs(name, dtype, tolerance):
    ours, theirs = pair(name, dtype)
    inputs, _ = batch(dtype)
    want = theirs.eval()(inputs)
    want = want[0] if isinstance(want, (tuple, list)) else want
    assert relative(ours.eval()(inputs), want) < tolerance


@every_pair
@precisions
def test_losses_and_gradients_equal_mmsegs(name, dtype, tolerance):
    zero = getattr(own_test(HEADS[name]), "ZERO_GRADIENT", [])
    results = []
    for head in pair(name, dtype):
        inputs, samples = batch(dtype)
        torch.manual_seed(2)  # the same dropout
        losses = head.loss(inputs, samples, None)
        sum(value for key, value in losses.items() if "loss" in key).backward()
        grads = {key: parameter.grad for key, parameter in head.named_parameters()}
        results.append((losses, grads, inputs[0].grad))
    (losses, grads, grad), (their_losses, their_grads, their_grad) = results
    assert losses.keys() == their_losses.keys()
    assert any("loss" in key for key in losses)
    for key, value in their_losses.items():
        assert relative(losses[key], value) < tolerance, key
    tolerance *= 100  # batch norm divides by the small spread of averaged values, which magnifies rounding
    # mmseg's optimizer states number the parameters, so their order counts as well.
    assert list(grads) == list(their_grads)
    largest = max(g.abs().max() for g in their_grads.values())
    for key, value in their_grads.items():
        # Measured against the largest gradient where the true one is zero.
        scale = largest if key in zero else value.abs().max()
        assert (grads[key] - value).abs().max() / scale < tolerance, key
    assert relative(grad, their_grad) < tolerance


@every_head
@pytest.mark.parametrize(
    "shape", [(2, 16, 9, 13), (2, 48, 9, 13), (24, 9, 13), (2, 24, 2, 9, 13), (2, 24, 0, 13)], ids=str
)
def test_a_feature_map_that_it_was_not_made_for_is_named(name, shape):
    head = build(name).eval()
    with pytest.raises(ValueError, match=rf"{name} was made for 24 channels.*got {re.escape(str(shape))}"):
        head([torch.zeros(shape)])
