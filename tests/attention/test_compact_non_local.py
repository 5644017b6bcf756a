"""CompactGeneralizedNonLocal against the paper's equation and the authors' blocks, in float64."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from danseg.attention import CompactGeneralizedNonLocal
from danseg.attention.compact_non_local import KERNELS
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
ROUNDING = 3  # one sum of both signs over a whole group scales all of its values
VARIANTS = {"CompactGeneralizedNonLocal": [dict(kernel="gaussian"), dict(kernel="rbf", use_scale=True)]}


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


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize(("groups", "counted", "order"), [(1, 1, 1), (3, 3, 3), (8, 2, 1)])
def test_equals_the_equation(groups, counted, order, kernel, use_scale, device):
    series = {} if kernel == "dot" else dict(order=order, gamma=0.3)
    module, x = (
        _make(groups=groups, kernel=kernel, use_scale=use_scale, **series).to(device),
        _input().to(device),
    )
    assert module.groups == counted
    y = reference.compact_generalized_non_local_sums(*_projected(module, x), counted, kernel, **series)
    y = y / (6 // counted * 35) ** 0.5 if use_scale else y
    torch.testing.assert_close(module(x), _finish(module, x, y), rtol=1e-10, atol=1e-12)


def _authors_block(module: CompactGeneralizedNonLocal, x: torch.Tensor, series: bool) -> torch.Tensor:
    """What the authors' networks do, group by group: no division by √n, and a constant γ of 1e-4.

    "cgnl" multiplies θ by the inner product of φ and g. "cgnlx" stacks the powers of θ and of φ, each
    times the square root of its coefficient, takes the inner products of φ's powers with g, and sums θ's
    powers weighted by them. The coefficient of power p is (2γ)^p / p! times the constant exp(-2γ).
    """
    theta, phi, g = _projected(module, x)
    gamma = 1e-4
    out = []
    for t, p, v in zip(*(tensor.chunk(module.groups, dim=1) for tensor in (theta, phi, g)), strict=True):
        shape, (t, p, v) = t.shape, (tensor.flatten(1) for tensor in (t, p, v))
        if series:
            roots = [
                ((2 * gamma) ** power / math.factorial(power) * math.exp(-2 * gamma)) ** 0.5
                for power in range(4)
            ]
            ts, ps = (torch.stack([root * u**i for i, root in enumerate(roots)], dim=1) for u in (t, p))
        else:
            ts, ps = t[:, None], p[:, None]
        sums = ps @ v[:, :, None]  # (B, powers, 1)
        out.append((sums.mT @ ts).view(shape))
    return _finish(module, x, torch.cat(out, dim=1))


@pytest.mark.parametrize(("arguments", "series"), [(dict(), False), (dict(kernel="gaussian"), True)])
@pytest.mark.parametrize("size", [1.0, 0.01], ids=["large", "where the norm's eps counts"])
def test_equals_the_authors_block(arguments, series, size, device):
    module, x = _make(**arguments).to(device), size * _input().to(device)
    torch.testing.assert_close(module(x), _authors_block(module, x, series), rtol=1e-10, atol=1e-12)


def test_a_long_series_is_the_gaussian_kernel(device):
    module, x = _make(groups=1, order=40, gamma=0.05, kernel="rbf").to(device), _input().to(device)
    theta, phi, g = (t.flatten(1) for t in _projected(module, x))
    kernel = torch.exp(-0.05 * (theta[:, :, None] - phi[:, None, :]) ** 2)
    y = torch.einsum("bmn,bn->bm", kernel, g)
    torch.testing.assert_close(module(x), _finish(module, x, y), rtol=1e-10, atol=1e-12)


def test_the_dot_products_sign_passes_the_group_normalisation(device):
    module, x = _make(groups=1).to(device), _input().to(device)
    with torch.no_grad():
        module.norm.bias.zero_()
        added = module(x) - x
        module.g.weight.neg_()
        torch.testing.assert_close(module(x) - x, -added, rtol=1e-10, atol=1e-12)
        module.g.weight.mul_(1000)  # a size does not pass
        torch.testing.assert_close(module(x) - x, -added, rtol=1e-4, atol=1e-6)


def _kernel(a: torch.Tensor, b: torch.Tensor, kernel: str, order: int, gamma: float) -> torch.Tensor:
    """k of all pairs of ``a`` (B, n) and ``b`` (B, n)."""
    a, b = a[:, :, None], b[:, None, :]
    if kernel == "dot":
        return a * b
    series = sum((2 * gamma * a * b) ** p / math.factorial(p) for p in range(order + 1))
    squares = torch.full_like(series, 2) if kernel == "gaussian" else a**2 + b**2
    return torch.exp(-gamma * squares) * series


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_views_are_means_of_the_kernel_over_the_channels_of_each_group(groups, kernel, use_scale, device):
    series = {} if kernel == "dot" else dict(order=2, gamma=0.3)
    module = _make(groups=groups, kernel=kernel, use_scale=use_scale, **series).to(device)
    x, channels = _input().to(device), 6 // groups
    theta, phi, _ = _projected(module, x)
    maps = []
    for t, p in zip(theta.chunk(groups, dim=1), phi.chunk(groups, dim=1), strict=True):
        pairs = _kernel(t.flatten(1), p.flatten(1), kernel, 2, 0.3)  # (B, n, n)
        pairs = pairs.view(2, channels, 35, channels, 35) / ((channels * 35) ** 0.5 if use_scale else 1)
        maps.append(pairs.mean(dim=(1, 3)))
    expected = {"": sum(maps) / groups}
    if groups > 1:
        expected |= {f"group {number}": one for number, one in enumerate(maps, start=1)}
    views = {view.name: view for view in module.attention_views()}
    assert list(views) == list(expected)
    for name, view in views.items():
        assert (view.kind, view.values) == ("position", "weights")
        begun = view.begin(x)
        for row, column in [(0, 0), (4, 6), (2, 5)]:
            rows = begun([(row, column)]).flatten(2)
            torch.testing.assert_close(rows, expected[name][:, [row * 7 + column]], rtol=1e-10, atol=1e-12)
    assert torch.equal(module.attention_map(x, [(4, 6)]), views[""].begin(x)([(4, 6)]))
    assert torch.equal(module.without_attention(x, module(x)), x)


def test_starts_as_the_identity():
    module, x = CompactGeneralizedNonLocal(12).double(), _input()
    assert torch.equal(module(x), x)
    assert F.mse_loss(_make()(x), x) > 1e-2


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="order.*0"):
        CompactGeneralizedNonLocal(12, order=0, kernel="rbf")
    with pytest.raises(ValueError, match="gamma.*-1"):
        CompactGeneralizedNonLocal(12, gamma=-1, kernel="gaussian")
    with pytest.raises(ValueError, match="kernel must be one of dot, gaussian, rbf, got 'softmax'"):
        CompactGeneralizedNonLocal(12, kernel="softmax")
    for arguments in (dict(order=3), dict(gamma=1e-4)):
        with pytest.raises(ValueError, match='kernel="dot" has no series: leave out order and gamma'):
            CompactGeneralizedNonLocal(12, kernel="dot", **arguments)
