"""What every head promises, checked over all of ``danseg.heads.__all__``.

What only a head's author knows stands in its own test file, ``tests/heads/test_STEM.py``:

* ``ARGS``, the head's own arguments beside :data:`small_head.COMMON`;
* ``counterpart()`` where mmseg has the network: mmseg's head with ``COMMON | ARGS``;
* ``ZERO_GRADIENT``, where there are any: parameters whose true gradient is zero;
* ``NOT_REPEATABLE``, where there are any: by arguments, as text, the operator that PyTorch refuses to run on
  a GPU when asked to be deterministic, in versions that have no repeatable form of it;
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
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.exported_files import draw
from cpu_alone import cpu_alone, one_on_gpu
from deterministic import deterministic
from drawn_head import HEADS, Device, build, plain
from own_test import own_test
from variants import one_by_one, switches


def batch(
    dtype: torch.dtype, device: Device = "cpu", size: tuple[int, int] = (9, 13)
) -> tuple[list, list[SegDataSample]]:
    """Features of a backbone that ends in 24 channels, and labels at four times their size."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 24, *size, dtype=torch.float64, generator=generator).to(device, dtype)
    label = torch.randint(0, 5, (2, 1, 4 * size[0], 4 * size[1]), generator=generator)
    label[:, :, :3] = 255
    return [x.requires_grad_()], [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in label.to(device)]


def trained(head: nn.Module, inputs: list, samples: list[SegDataSample]) -> tuple[dict, dict]:
    """All that ``loss`` returns, and the gradients of the parameters and of the input, by name."""
    found = head.loss(inputs, samples, None)
    sum(value for key, value in found.items() if "loss" in key).backward()
    return found, {key: one.grad for key, one in [*head.named_parameters(), ("input", inputs[0])]}


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


every_head = pytest.mark.parametrize("name", sorted(HEADS))
every_pair = pytest.mark.parametrize(
    "name", [n for n in sorted(HEADS) if hasattr(own_test(HEADS[n]), "counterpart")]
)
precisions = pytest.mark.parametrize(
    ("dtype", "tolerance"), [cpu_alone(torch.float32, 1e-5), (torch.float64, 1e-10)]
)


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
def test_forward_is_the_classified_feature(name, device):
    head = build(name, device=device).eval()
    inputs, _ = batch(torch.float32, device)
    assert torch.equal(head(inputs), head.cls_seg(head._forward_feature(inputs)))


@pytest.mark.parametrize(
    "name", [n for n in sorted(HEADS) if not getattr(own_test(HEADS[n]), "WITHOUT_ATTENTION", False)]
)
def test_every_position_reaches_every_other(name, device):
    # Convolutions alone reach a few positions; only attention carries a change across the map.
    head = build(name, torch.float64, device).eval()
    inputs, _ = batch(torch.float64, device, size=(23, 31))
    changed = inputs[0].detach().clone()
    changed[:, :, 0, 0] += 5
    with torch.no_grad():
        far = (head([changed]) - head(inputs))[:, :, -4:, -4:]
    assert far.abs().amax() > 1e-8


@every_head
def test_loss_trains_every_parameter(name, device):
    _, grads = trained(build(name, device=device), *batch(torch.float32, device))
    assert grads["input"].abs().sum() > 0
    assert not [key for key, grad in grads.items() if grad is None]


@every_head
@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        (dict(type="SyncBN"), nn.SyncBatchNorm),
        cpu_alone(dict(type="GN", num_groups=1), nn.GroupNorm),
        cpu_alone(None, ()),
    ],
    ids=str,
)
def test_trains_with_every_norm(name, norm, kind, device):
    head = build(name, device=device, norm_cfg=norm)
    norms = [one for one in head.modules() if isinstance(one, (_BatchNorm, nn.GroupNorm))]
    assert all(isinstance(one, kind) for one in norms) and bool(norms) == (norm is not None)
    _, grads = trained(head, *batch(torch.float32, device))
    assert not [key for key, grad in grads.items() if grad is None or not grad.isfinite().all()]


@every_head
@pytest.mark.parametrize(
    ("memory_format", "size"),
    [
        (torch.contiguous_format, (9, 13)),
        (torch.channels_last, (16, 7)),
        cpu_alone(torch.contiguous_format, (16, 7)),
        cpu_alone(torch.channels_last, (9, 13)),
    ],
    ids=str,
)
def test_on_every_device_logits_losses_and_gradients_are_those_of_float64_on_the_cpu(
    name, memory_format, size, device
):
    zero = getattr(own_test(HEADS[name]), "ZERO_GRADIENT", [])
    # With stored batch statistics: those of averaged values are so narrow that dividing magnifies rounding.
    wide, narrow = build(name, torch.float64).eval(), build(name, device=device).eval()
    narrow.to(memory_format=memory_format)
    exact, (inputs, samples) = batch(torch.float64, size=size), batch(torch.float32, device, size)
    inputs[0].data = inputs[0].data.contiguous(memory_format=memory_format)
    (losses, grads), (want_losses, want_grads) = trained(narrow, inputs, samples), trained(wide, *exact)
    assert {value.device.type for value in [*losses.values(), *grads.values()]} == {device.type}
    for key, value in want_losses.items():
        assert relative(losses[key].cpu(), value) < (1e-4 if "loss" in key else 2e-3), key
    largest = max(grad.abs().max() for grad in want_grads.values())
    for key, want in want_grads.items():
        scale = largest if key in zero else max(want.abs().max(), 1e-3 * largest)
        assert (grads[key].cpu() - want).abs().max() / scale < 1e-3, key
    with torch.no_grad():
        want, found = wide(exact[0]), narrow(inputs)
        assert relative(found.cpu(), want) < 1e-4
        predicted = narrow.predict(inputs, [dict(img_shape=(33, 47))] * 2, None)
        resized = nn.functional.interpolate(want, (33, 47), mode="bilinear")
        assert relative(predicted.cpu(), resized) < 1e-4


@every_head
@pytest.mark.parametrize("wrong", one_on_gpu([5, 254, -1]))
def test_a_label_that_is_no_class_is_named_before_a_kernel_meets_it(name, wrong, device):
    inputs, samples = batch(torch.float32, device)
    samples[1].gt_sem_seg.data[0, -1, -1] = wrong
    head = build(name, device=device)
    with pytest.raises(ValueError, match=f"from 0 to 4 or ignore_index, got {wrong}; num_classes must match"):
        head.loss(inputs, samples, None)
    assert head(inputs).isfinite().all(), "CUDA works on"


def variants(name: str) -> list[dict]:
    """Keyword arguments for each of the head's modes and switches."""
    needed = getattr(own_test(HEADS[name]), "NEEDED", {})
    found = one_by_one(switches(HEADS[name], lambda **arguments: plain(name, **arguments)))
    return [arguments | needed.get(next(iter(arguments), None), {}) for arguments in found]


VARIANTS = [(name, arguments) for name in sorted(HEADS) for arguments in variants(name)]


def not_repeatable(name: str, arguments: dict) -> str | None:
    return getattr(own_test(HEADS[name]), "NOT_REPEATABLE", {}).get(str(arguments))


variants_and_one_on_gpu = pytest.mark.parametrize(
    ("name", "arguments"), one_on_gpu(VARIANTS, lambda variant: variant[0]), ids=str
)


@variants_and_one_on_gpu
@pytest.mark.parametrize("way", [cpu_alone("cast"), "autocast"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_every_mode_trains_in_16_bits(name, arguments, way, dtype, tolerance, device):
    losses = []
    for narrow in (False, True):
        head = build(name, dtype if narrow and way == "cast" else torch.float32, device, **arguments)
        inputs, samples = batch(next(head.parameters()).dtype, device)
        torch.manual_seed(2)  # the same dropout
        with torch.autocast(device.type, dtype, enabled=narrow and way == "autocast"):
            found = head.loss(inputs, samples, None)
        sum(value for key, value in found.items() if "loss" in key).backward()
        assert inputs[0].grad.isfinite().all()
        assert not [k for k, p in head.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        losses.append({key: value.item() for key, value in found.items() if "loss" in key})
    assert losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)


@pytest.mark.parametrize(
    ("name", "arguments"),
    one_on_gpu(VARIANTS, lambda variant: (variant[0], not_repeatable(*variant))),
    ids=str,
)
def test_a_training_step_repeats_to_the_bit_or_pytorch_names_what_cannot(name, arguments, device):
    with deterministic(refused=not_repeatable(name, arguments) if device.type == "cuda" else None):
        steps = []
        for _ in range(2):
            head = build(name, device=device, **arguments)
            inputs, samples = batch(torch.float32, device)
            torch.manual_seed(2)
            steps.append(trained(head, inputs, samples))
        assert_repeats(steps)


def assert_repeats(steps: list[tuple[dict, dict]]) -> None:
    for one, other in zip(*steps, strict=True):
        assert not [key for key, value in one.items() if not torch.equal(value, other[key])]


@pytest.mark.parametrize("name", sorted(HEADS))
def test_what_cannot_repeat_is_a_variant(name):
    known = {str(arguments) for head, arguments in VARIANTS if head == name}
    assert set(getattr(own_test(HEADS[name]), "NOT_REPEATABLE", {})) <= known


def pair(name: str, dtype: torch.dtype, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """danseg's and mmseg's head with equal weights, which have gone both ways."""
    ours, theirs = build(name, dtype, device), own_test(HEADS[name]).counterpart()
    draw(theirs)
    theirs.to(device, dtype)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@every_pair
@precisions
def test_logits_equal_mmsegs(name, dtype, tolerance, device):
    ours, theirs = pair(name, dtype, device)
    inputs, _ = batch(dtype, device)
    tolerance *= 10 if device.type == "cuda" else 1  # it adds in another order
    want = theirs.eval()(inputs)
    want = want[0] if isinstance(want, (tuple, list)) else want
    assert relative(ours.eval()(inputs), want) < tolerance


@every_pair
@precisions
def test_losses_and_gradients_equal_mmsegs(name, dtype, tolerance, device):
    zero = getattr(own_test(HEADS[name]), "ZERO_GRADIENT", [])
    results = []
    for head in pair(name, dtype, device):
        inputs, samples = batch(dtype, device)
        torch.manual_seed(2)  # the same dropout
        results.append(trained(head, inputs, samples))
    (losses, grads), (their_losses, their_grads) = results
    tolerance *= 10 if device.type == "cuda" else 1
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


@every_head
@pytest.mark.parametrize(
    "shape", [(2, 16, 9, 13), (2, 48, 9, 13), (24, 9, 13), (2, 24, 2, 9, 13), (2, 24, 0, 13)], ids=str
)
def test_a_feature_map_that_it_was_not_made_for_is_named(name, shape):
    head = build(name).eval()
    with pytest.raises(ValueError, match=rf"{name} was made for 24 channels.*got {re.escape(str(shape))}"):
        head([torch.zeros(shape)])
