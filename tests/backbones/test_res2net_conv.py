"""Res2NetConv against its equation in float64."""

import pytest
import torch
from torch import nn

from danseg.backbones.res2net_conv import Res2NetConv
from danseg.ops import reference


def _module(**arguments) -> Res2NetConv:
    torch.manual_seed(0)
    module = Res2NetConv(12, **arguments).double().eval()
    for bn in module.bns:
        for tensor in (bn.weight, bn.bias, bn.running_mean):
            nn.init.normal_(tensor, 0.3, 0.5)
        nn.init.uniform_(bn.running_var, 0.5, 1.5)
    return module


@pytest.mark.parametrize(
    ("scale", "chained", "stride"), [(4, True, 1), (3, True, 1), (4, False, 1), (4, False, 2)]
)
def test_equals_the_equation(scale, chained, stride, device):
    module = _module(scale=scale, chained=chained, stride=stride, dilation=2)
    x = torch.randn(2, 12, 9, 12, dtype=torch.float64)
    width = 12 // scale
    y = []
    for i in range(scale - 1):
        seen = x[:, i * width : (i + 1) * width]
        if i > 0 and chained:
            seen = seen + y[-1]
        bn = module.bns[i]
        convolved = reference.convolution(seen, module.convs[i].weight, stride, dilation=2)
        y.append(
            reference.batch_norm(convolved, bn.weight, bn.bias, bn.running_mean, bn.running_var).clamp(min=0)
        )
    last = x[:, -width:]
    if not chained:
        ninth = torch.full((width, 1, 3, 3), 1 / 9, dtype=torch.float64)
        last = reference.convolution(last, ninth, stride, groups=width)
    torch.testing.assert_close(
        module.to(device)(x.to(device)).cpu(), torch.cat([*y, last], dim=1), rtol=1e-10, atol=1e-12
    )


def test_a_chain_reaches_further_with_every_split():
    module = _module(scale=4, dilation=2)
    for bn in module.bns:
        bn.bias.data.fill_(20)  # no ReLU hides a response
    x = torch.zeros(1, 12, 25, 25, dtype=torch.float64, requires_grad=True)
    out = module(x)
    for i, reach in enumerate((2, 4, 6)):
        (grad,) = torch.autograd.grad(out[0, 3 * i : 3 * i + 3, 12, 12].sum(), x, retain_graph=True)
        columns = grad[0].abs().sum(dim=(0, 1)).nonzero().flatten()
        assert (columns.min(), columns.max()) == (12 - reach, 12 + reach)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="divisible by scale = 4, got 10"):
        Res2NetConv(10)
    with pytest.raises(ValueError, match="scale must be at least 2, got 1"):
        Res2NetConv(8, scale=1)
    with pytest.raises(ValueError, match="stride must be 1 .*chained=False, got 2"):
        Res2NetConv(8, stride=2)
