"""HierarchicalSplit against its equation in float64."""

import pytest
import torch
from torch import nn

from danseg.backbones.hierarchical_split import HierarchicalSplit
from danseg.ops import reference


def _module(in_channels: int, **arguments) -> HierarchicalSplit:
    torch.manual_seed(0)
    module = HierarchicalSplit(in_channels, **arguments).double().eval()
    for bn in module.bns:
        for tensor in (bn.weight, bn.bias, bn.running_mean):
            nn.init.normal_(tensor, 0.3, 0.5)
        nn.init.uniform_(bn.running_var, 0.5, 1.5)
    return module


@pytest.mark.parametrize(("in_channels", "splits", "stride"), [(20, 5, 1), (15, 5, 1), (6, 2, 1), (12, 3, 2)])
def test_equals_the_equation(in_channels, splits, stride, device):
    module = _module(in_channels, splits=splits, stride=stride, dilation=2)
    x = torch.randn(2, in_channels, 9, 12, dtype=torch.float64)
    width = in_channels // splits
    out, handed = [x[:, :width]], x[:, :0]
    for i in range(1, splits):
        bn = module.bns[i - 1]
        seen = torch.cat([x[:, i * width : (i + 1) * width], handed], dim=1)
        y = reference.convolution(seen, module.convs[i - 1].weight, dilation=2)
        y = reference.batch_norm(y, bn.weight, bn.bias, bn.running_mean, bn.running_var).clamp(min=0)
        half = y.shape[1] if i == splits - 1 else (y.shape[1] + 1) // 2
        out.append(y[:, :half])
        handed = y[:, half:]
    out = torch.cat(out, dim=1)
    if stride == 2:
        ninth = torch.full((in_channels, 1, 3, 3), 1 / 9, dtype=torch.float64)
        out = reference.convolution(out, ninth, stride, groups=in_channels)
    assert out.shape[1] == in_channels
    torch.testing.assert_close(module.to(device)(x.to(device)).cpu(), out, rtol=1e-10, atol=1e-12)


def test_a_chain_reaches_further_with_every_split():
    module = _module(10, splits=5, dilation=2)
    for bn in module.bns:
        bn.bias.data.fill_(20)  # no ReLU hides a response
    x = torch.zeros(1, 10, 25, 25, dtype=torch.float64, requires_grad=True)
    out = module(x)
    (grad,) = torch.autograd.grad(out[0, -1:, 12, 12].sum(), x)
    columns = grad[0].abs().sum(dim=(0, 1)).nonzero().flatten()
    assert (columns.min(), columns.max()) == (12 - 8, 12 + 8)
    assert torch.equal(out[:, :2], x[:, :2])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="divisible by splits = 5, got 12"):
        HierarchicalSplit(12)
    with pytest.raises(ValueError, match="splits must be at least 2, got 1"):
        HierarchicalSplit(12, splits=1)
