"""CompactGeneralizedNonLocal against the paper's equation in float64 and the kernel it approximates."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from danseg.attention import CompactGeneralizedNonLocal
from danseg.ops import reference

PARAMETER_NAMES = {
    "CompactGeneralizedNonLocal": [
        "theta.weight",
        "phi.weight",
        "g.weight",
        "conv_out.weight",
        "norm.weight",
        "norm.bias",
    ]
}


def _make(**arguments) -> CompactGeneralizedNonLocal:
    torch.manual_seed(0)
    module = CompactGeneralizedNonLocal(12, **arguments).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)
    return module


def _input() -> torch.Tensor:
    return torch.randn(2, 12, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _finish(module: CompactGeneralizedNonLocal, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The layers after the sums, from torch's own functions: grouped convolution and group normalisation."""
    return x + module.norm(module.conv_out(y.view(2, -1, 5, 7)))


def _projected(module: CompactGeneralizedNonLocal, x: torch.Tensor) -> list[torch.Tensor]:
    return [
        torch.einsum("dc,bcn->bdn", conv.weight.flatten(1), x.flatten(2))
        for conv in (module.theta, module.phi, module.g)
    ]


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(("groups", "counted"), [(1, 1), (3, 3), (8, 2)])
def test_equals_the_equation(groups, counted, order):
    module, x = _make(groups=groups, order=order, gamma=0.3), _input()
    assert module.groups == counted
    y = reference.compact_generalized_non_local_sums(*_projected(module, x), counted, order, 0.3)
    torch.testing.assert_close(module(x), _finish(module, x, y), rtol=1e-10, atol=1e-12)


def test_a_long_series_is_the_gaussian_kernel():
    module, x = _make(groups=1, order=40, gamma=0.05), _input()
    theta, phi, g = (t.flatten(1) for t in _projected(module, x))
    kernel = torch.exp(-0.05 * (theta[:, :, None] - phi[:, None, :]) ** 2)
    y = torch.einsum("bmn,bn->bm", kernel, g) / g.shape[1] ** 0.5
    torch.testing.assert_close(module(x), _finish(module, x, y), rtol=1e-10, atol=1e-12)


def test_starts_as_the_identity():
    module, x = CompactGeneralizedNonLocal(12).double(), _input()
    assert torch.equal(module(x), x)
    assert F.mse_loss(_make()(x), x) > 1e-2


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="order.*0"):
        CompactGeneralizedNonLocal(12, order=0)
    with pytest.raises(ValueError, match="gamma.*-1"):
        CompactGeneralizedNonLocal(12, gamma=-1)
