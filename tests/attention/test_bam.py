"""BAM against its equations in float64."""

import pytest
import torch
from torch import nn

from danseg.attention import BAM
from danseg.ops import reference
from shown_view import shown

PARAMETER_NAMES = {
    "BAM": [
        "channel.0.weight",
        "channel.0.bias",
        "channel.2.weight",
        "channel.3.weight",
        "channel.3.bias",
        "spatial.0.weight",
        "spatial.1.weight",
        "spatial.1.bias",
        "spatial.3.weight",
        "spatial.4.weight",
        "spatial.4.bias",
        "spatial.6.weight",
        "spatial.7.weight",
        "spatial.7.bias",
        "spatial.9.weight",
        "spatial.10.weight",
        "spatial.10.bias",
    ]
}
NEUTRAL = {"BAM": ["channel.3.weight", "channel.3.bias", "spatial.10.weight"]}
# With 16 channels there is one hidden unit, active in both images of the contract's batch. The bias moves
# both images alike, so the normalisation over the batch cancels it. With more units or images it counts.
ZERO_GRADIENT = {"BAM": ["channel.0.bias"]}
VARIANTS = {"BAM": [dict(fusion="product", reduction=4)]}


def _module(dilation: int = 2, **arguments) -> BAM:
    torch.manual_seed(0)
    module = BAM(12, 3, dilation, **arguments).double().eval()
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.02, 0.1)
    return module


def _norm(layer: nn.BatchNorm2d) -> list[torch.Tensor]:
    return [layer.weight, layer.bias, layer.running_mean, layer.running_var]


def _spatial_layers(module: BAM) -> list[tuple]:
    return [(module.spatial[i].weight, _norm(module.spatial[i + 1])) for i in (0, 3, 6, 9)]


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_equals_the_equations(dilation, device):
    module, x = _module(dilation).to(device), torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    first, _, second, norm = module.channel
    channel = [first.weight.flatten(1), first.bias, second.weight.flatten(1)]
    expected = reference.bam(x, channel, _norm(norm), _spatial_layers(module), dilation)
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)


# The state of the authors' block for 12 channels and 4 hidden ones, without the counters of batches.
AUTHORS = {
    "channel_att.gate_c.gate_c_fc_0": (4, 12),
    "channel_att.gate_c.gate_c_fc_final": (12, 4),
    "spatial_att.gate_s.gate_s_conv_reduce0": (4, 12, 1, 1),
    "spatial_att.gate_s.gate_s_conv_di_0": (4, 4, 3, 3),
    "spatial_att.gate_s.gate_s_conv_di_1": (4, 4, 3, 3),
    "spatial_att.gate_s.gate_s_conv_final": (1, 4, 1, 1),
}
AUTHORS_NORMS = ["channel_att.gate_c.gate_c_bn_1"] + [
    f"spatial_att.gate_s.gate_s_bn_{name}" for name in ("reduce0", "di_0", "di_1")
]


def _authors_block(state: dict[str, torch.Tensor], x: torch.Tensor, dilation: int) -> torch.Tensor:
    """What the authors' code computes: two chains of layers with biases, multiplied and not added."""

    def norm(name: str, y: torch.Tensor) -> torch.Tensor:
        return reference.batch_norm(
            y, *(state[f"{name}.{key}"] for key in ("weight", "bias", "running_mean", "running_var"))
        )

    def layer(name: str, y: torch.Tensor, rate: int = 1) -> torch.Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if weight.dim() == 2:
            return torch.einsum("dc,bc->bd", weight, y) + bias
        return reference.convolution(y, weight, dilation=rate, bias=bias)

    channel, spatial = "channel_att.gate_c.gate_c_", "spatial_att.gate_s.gate_s_"
    m_c = norm(f"{channel}bn_1", layer(f"{channel}fc_0", x.mean(dim=(2, 3)))).clamp(min=0)
    m_c = layer(f"{channel}fc_final", m_c)
    m_s = x
    for name, rate in (("reduce0", 1), ("di_0", dilation), ("di_1", dilation)):
        m_s = norm(f"{spatial}bn_{name}", layer(f"{spatial}conv_{name}", m_s, rate)).clamp(min=0)
    m_s = layer(f"{spatial}conv_final", m_s)
    return x * (1 + 1 / (1 + (-m_c[:, :, None, None] * m_s).exp()))


@pytest.mark.parametrize("dilation", [1, 4])
def test_the_product_is_the_authors_block(dilation, device):
    module, x = (
        _module(dilation, fusion="product").to(device),
        torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device),
    )
    state = module.state_dict()
    wanted = {f"{name}.weight": size for name, size in AUTHORS.items()}
    wanted |= {f"{name}.bias": size[:1] for name, size in AUTHORS.items()}
    for name in AUTHORS_NORMS:
        wanted |= {f"{name}.{key}": (4,) for key in ("weight", "bias", "running_mean", "running_var")}
        wanted[f"{name}.num_batches_tracked"] = ()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == wanted
    torch.testing.assert_close(module(x), _authors_block(state, x, dilation), rtol=1e-10, atol=1e-12)
    m_s = module.spatial_att(x)
    torch.testing.assert_close(module.attention_map(x), m_s.sigmoid())


def test_map_is_the_spatial_branch(device):
    module, x = _module().to(device), torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    expected = reference.bam_map(x, _spatial_layers(module), dilation=2).sigmoid()
    assert expected.std() > 1e-2
    torch.testing.assert_close(module.attention_map(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("fusion", ["sum", "product"])
def test_views_are_the_branches_and_their_gate(fusion, device):
    module = _module(fusion=fusion).to(device)
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device)
    if fusion == "sum":
        first, _, second, norm = module.channel
        w_1, w_2 = first.weight.flatten(1), second.weight.flatten(1)
        hidden = (x.mean(dim=(2, 3)) @ w_1.T + first.bias).clamp(min=0)
        m_c = reference.batch_norm(hidden @ w_2.T, *_norm(norm))
        m_s = reference.bam_map(x, _spatial_layers(module), dilation=2)
        gate = 1 / (1 + (-m_c[:, :, None, None] - m_s).exp())
    else:
        gate = _authors_block(module.state_dict(), x, 2) / x - 1
        energy = (gate / (1 - gate)).log()  # M_c · M_s: all its rows and columns are multiples of each other
        m_s = module.spatial_att(x)
        m_c = (energy / m_s)[..., 0, 0]
    for name, want in (
        ("", m_s.sigmoid()),
        ("channels", m_c.sigmoid()[:, None]),
        ("mean gate", gate.mean(dim=1, keepdim=True)),
    ):
        torch.testing.assert_close(shown(module, x, name), want, rtol=1e-8, atol=1e-10)
    without = x * (1 + gate.mean(dim=(1, 2, 3), keepdim=True))
    torch.testing.assert_close(module.without_attention(x, module(x)), without, rtol=1e-8, atol=1e-10)


def test_both_branches_count(device):
    module, x = _module().to(device), torch.randn(1, 12, 5, 7, dtype=torch.float64).to(device)
    gates = module(x) / x
    assert (gates.min() > 1) and (gates.max() < 2)
    assert (gates[:, 1:] / gates[:, :1] - 1).abs().max() > 1e-2  # differs between channels
    assert (gates[..., 1:] / gates[..., :1] - 1).abs().max() > 1e-2  # and between positions


def test_every_parameter_learns(device):
    torch.manual_seed(0)
    module = BAM(32, 4).to(device)
    module(torch.randn(6, 32, 5, 7).to(device)).square().sum().backward()
    assert not [name for name, parameter in module.named_parameters() if parameter.grad.abs().max() < 1e-5]


@pytest.mark.parametrize("fusion", ["sum", "product"])
def test_training_on_one_image_names_the_fix(fusion):
    module, x = BAM(8, fusion=fusion), torch.randn(1, 8, 5, 7)
    with pytest.raises(ValueError, match="at least 2 images, got 1; raise the batch size"):
        module(x)
    assert module.eval()(x).shape == x.shape


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="reduction.*at least 1.*-2"):
        BAM(8, -2)
    with pytest.raises(ValueError, match="dilation.*at least 1.*0"):
        BAM(8, dilation=0)
    with pytest.raises(ValueError, match="fusion must be one of sum, product, got 'max'"):
        BAM(8, fusion="max")
