"""GlobalContext against GCNet's equations in float64, and against mmcv's block."""

import pytest
import torch
from torch import nn

from danseg.attention import GlobalContext
from danseg.ops import reference

PARAMETER_NAMES = {
    "GlobalContext": [
        "conv_mask.weight",
        "conv_mask.bias",
        "channel_add_conv.0.weight",
        "channel_add_conv.0.bias",
        "channel_add_conv.1.weight",
        "channel_add_conv.1.bias",
        "channel_add_conv.3.weight",
        "channel_add_conv.3.bias",
    ]
}
# It adds one number to the energies of all positions, which the softmax cancels.
ZERO_GRADIENT = {"GlobalContext": ["conv_mask.bias"]}

FUSIONS = [("channel_add",), ("channel_mul",), ("channel_add", "channel_mul")]


def _drawn(module: nn.Module) -> nn.Module:
    """In float64, with every parameter away from zero and one."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return module


def _flat_weights(transform: nn.Sequential | None) -> list[torch.Tensor] | None:
    if transform is None:
        return None
    first, norm, _, last = transform
    return [
        first.weight.flatten(1),
        first.bias,
        norm.weight.flatten(),
        norm.bias.flatten(),
        last.weight.flatten(1),
        last.bias,
    ]


@pytest.mark.parametrize("fusion_types", FUSIONS)
def test_equals_the_equation(fusion_types, device):
    module = _drawn(GlobalContext(12, fusion_types=fusion_types)).to(device)
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    expected = reference.global_context(
        x.flatten(2),
        module.conv_mask.weight.flatten(),
        module.conv_mask.bias,
        add=_flat_weights(module.channel_add_conv),
        mul=_flat_weights(module.channel_mul_conv),
    )
    torch.testing.assert_close(module(x), expected.view_as(x), rtol=1e-10, atol=1e-12)


def test_map_is_that_of_the_equation(device):
    module, x = _drawn(GlobalContext(12)).to(device), torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    weight = module.attention_map(x)
    expected = reference.global_context_map(
        x.flatten(2), module.conv_mask.weight.flatten(), module.conv_mask.bias
    )
    torch.testing.assert_close(weight, expected.view(2, 1, 5, 7), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(weight.sum(dim=(2, 3)), torch.ones(2, 1, dtype=torch.float64).to(device))


@pytest.mark.parametrize("fusion_types", FUSIONS)
@pytest.mark.parametrize("pooling_type", ["att", "avg"])
def test_equals_mmcvs_block_with_its_weights(pooling_type, fusion_types, device):
    ContextBlock = pytest.importorskip("mmcv.cnn").ContextBlock
    theirs = _drawn(ContextBlock(12, 1 / 4, pooling_type, fusion_types))
    ours = GlobalContext(12, 1 / 4, pooling_type, fusion_types).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    ours, theirs, x = (
        one.to(device) for one in (ours, theirs, torch.randn(2, 12, 5, 7, dtype=torch.float64))
    )
    x.requires_grad_()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-12)
    grads = [
        torch.autograd.grad(module(x).square().sum(), [x, *module.parameters()]) for module in (ours, theirs)
    ]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-10)


def _mean_of(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bj,bcj->bc", weight.flatten(1), x.flatten(2))


@pytest.mark.parametrize("fusion_types", FUSIONS)
@pytest.mark.parametrize("pooling_type", ["att", "avg"])
def test_views_are_the_map_and_the_gates_of_channels(pooling_type, fusion_types, device):
    module = _drawn(GlobalContext(12, pooling_type=pooling_type, fusion_types=fusion_types)).to(device)
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    if pooling_type == "att":
        mask = module.conv_mask
        weight = reference.global_context_map(x.flatten(2), mask.weight.flatten(), mask.bias)
    else:
        weight = torch.full_like(x[:, 0].flatten(1), 1 / 35)
    views = {view.name: view for view in module.attention_views()}
    gated = "channel_mul" in fusion_types
    assert list(views) == (["", "channels"] if gated else [""])
    assert (views[""].kind, views[""].values) == ("everywhere", "shares")
    torch.testing.assert_close(views[""].begin(x)(), weight.view(2, 1, 5, 7), rtol=1e-10, atol=1e-12)
    without = x
    if gated:
        assert (views["channels"].kind, views["channels"].values) == ("channels", "gate")
        transform = _flat_weights(module.channel_mul_conv)
        energy = reference.global_context_transform(_mean_of(x, weight), *transform)
        gates = 1 / (1 + (-energy).exp())  # (B, C)
        found = views["channels"].begin(x)()
        torch.testing.assert_close(found, gates[:, None], rtol=1e-10, atol=1e-12)
        without = x * gates.mean(dim=1)[:, None, None, None]
    torch.testing.assert_close(module.without_attention(x, module(x)), without, rtol=1e-10, atol=1e-12)


def test_a_position_far_away_counts(device):
    module, x = _drawn(GlobalContext(12)).to(device), torch.randn(1, 12, 5, 7, dtype=torch.float64).to(device)
    changed = x.clone()
    changed[..., 0, 0] += 1
    assert not torch.allclose(module(changed)[..., 4, 6], module(x)[..., 4, 6])


def test_starts_as_the_identity_and_init_weights_brings_it_back():
    module, x = GlobalContext(12), torch.randn(1, 12, 5, 7)
    assert torch.equal(module(x), x)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    assert not torch.allclose(module(x), x)
    module.init_weights()
    assert torch.equal(module(x), x)


def test_bottleneck_never_vanishes():
    assert GlobalContext(512).channel_add_conv[0].out_channels == 128
    assert GlobalContext(3).channel_add_conv[0].out_channels == 1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="ratio.*got 0"):
        GlobalContext(8, ratio=0)
    with pytest.raises(ValueError, match="'att', 'avg'.*'max'"):
        GlobalContext(8, pooling_type="max")
    for fusion_types in ((), ("channel_sum",), "channel_add"):
        with pytest.raises(ValueError, match="tuple from.*channel_mul.*got"):
            GlobalContext(8, fusion_types=fusion_types)
