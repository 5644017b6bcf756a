"""GlobalSecondOrderPooling against GSoP-Net's equations in float64."""

import pytest
import torch
from torch import nn

from danseg.attention import GlobalSecondOrderPooling
from danseg.ops import reference
from shown_view import shown

PARAMETER_NAMES = {
    "GlobalSecondOrderPooling": [
        "reduce.conv.weight",
        "reduce.bn.weight",
        "reduce.bn.bias",
        "row_norm.weight",
        "row_norm.bias",
        "row_conv.weight",
        "row_conv.bias",
        "expand.weight",
        "expand.bias",
    ]
}
NEUTRAL = {"GlobalSecondOrderPooling": ["expand.weight", "expand.bias"]}
VARIANTS = {"GlobalSecondOrderPooling": [dict(stride=2, relu_first=True)]}


def _module(**arguments) -> GlobalSecondOrderPooling:
    torch.manual_seed(0)
    module = GlobalSecondOrderPooling(12, 5, **arguments).double().eval()
    for norm in (module.reduce.bn, module.row_norm):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.3)
        nn.init.normal_(norm.running_mean, 0, 0.3)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return module


def _norm(layer: nn.BatchNorm2d) -> list[torch.Tensor]:
    return [layer.weight, layer.bias, layer.running_mean, layer.running_var]


def test_equals_the_equation(device):
    module, x = _module().to(device), torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    expected = reference.global_second_order_pooling(
        x.flatten(2),
        module.reduce.conv.weight.flatten(1),
        _norm(module.reduce.bn),
        _norm(module.row_norm),
        module.row_conv.weight.view(5, 4, 5),
        module.row_conv.bias.view(5, 4),
        module.expand.weight.view(12, 5, 4),
        module.expand.bias,
    )
    torch.testing.assert_close(module(x), expected.view_as(x), rtol=1e-10, atol=1e-12)
    gate = (expected.view_as(x) / x).mean(dim=(2, 3))  # the same at all positions
    torch.testing.assert_close(shown(module, x), gate[:, None], rtol=1e-9, atol=1e-12)
    without = x * gate.mean(dim=1)[:, None, None, None]
    torch.testing.assert_close(module.without_attention(x, expected), without, rtol=1e-9, atol=1e-12)


def test_the_authors_channel_attention(device):
    """Their code: a ReLU, a strided convolution with a bias, and the covariance as y (I/M - 11ᵀ/M²) yᵀ."""
    module, x = (
        _module(stride=2, relu_first=True).to(device),
        torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device),
    )
    bias = torch.randn(5, dtype=torch.float64).to(device)
    mean = module.reduce.bn.running_mean
    y = reference.convolution(x.clamp(min=0), module.reduce.conv.weight, stride=2, bias=bias)
    assert y.shape[2:] == (3, 4)
    norm = _norm(module.reduce.bn)
    norm[2] = mean + bias  # the code's running mean; the module's is without the bias
    y = reference.batch_norm(y, *norm).clamp(min=0).flatten(2)
    centring = (
        torch.eye(12, dtype=y.dtype).to(device) / 12 - torch.ones(12, 12, dtype=y.dtype).to(device) / 12**2
    )
    rows = reference.batch_norm(y @ centring @ y.mT, *_norm(module.row_norm))
    w_row, b_row = module.row_conv.weight.view(5, 4, 5), module.row_conv.bias
    rows = torch.einsum("rks,brs->brk", w_row, rows).flatten(1) + b_row
    energy = rows @ module.expand.weight.flatten(1).T + module.expand.bias
    expected = x / (1 + (-energy).exp())[:, :, None, None]
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)


def test_sees_how_channels_vary_together_and_not_their_means(device):
    # The same values in every channel, in another order: only covariances change.
    module, x = _module().to(device), torch.randn(1, 12, 5, 7, dtype=torch.float64).to(device)
    shuffled = x.clone()
    shuffled[:, :6] = x[:, :6].flip(2, 3)
    gate, gate_shuffled = (module(t)[0] / t[0] for t in (x, shuffled))
    assert (gate[:, 0, 0] - gate_shuffled[:, 0, 0]).abs().max() > 1e-3


def test_covariance_is_summed_in_float32(device):
    # The sum of 576 squares of about 30 leaves float16's range, their mean does not.
    torch.manual_seed(0)
    module = GlobalSecondOrderPooling(4).to(device).eval()
    x = 30 * torch.randn(1, 4, 24, 24).to(device)
    half = module.half()(x.half())
    torch.testing.assert_close(half.float(), module.float()(x), rtol=2e-2, atol=1.0)


def test_reduced_channels_default_to_128_and_no_more_than_there_are():
    assert GlobalSecondOrderPooling(512).reduce.conv.out_channels == 128
    assert GlobalSecondOrderPooling(32).reduce.conv.out_channels == 32


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="reduced_channels.*at least 1.*-3"):
        GlobalSecondOrderPooling(8, -3)
    with pytest.raises(ValueError, match="stride.*at least 1.*0"):
        GlobalSecondOrderPooling(8, stride=0)
