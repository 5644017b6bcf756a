"""BAM against its equations in float64."""

import pytest
import torch
from torch import nn

from danseg.attention import BAM
from danseg.ops import reference

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
# With 16 channels there is one hidden unit, active in both images of the contract's batch. The bias moves
# both images alike, so the normalisation over the batch cancels it. With more units or images it counts.
ZERO_GRADIENT = {"BAM": ["channel.0.bias"]}


def _module(dilation: int = 2) -> BAM:
    torch.manual_seed(0)
    module = BAM(12, 3, dilation).double().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
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
def test_equals_the_equations(dilation):
    module, x = _module(dilation), torch.randn(2, 12, 5, 7, dtype=torch.float64)
    first, _, second, norm = module.channel
    channel = [first.weight.flatten(1), first.bias, second.weight.flatten(1)]
    expected = reference.bam(x, channel, _norm(norm), _spatial_layers(module), dilation)
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)


def test_map_is_the_spatial_branch():
    module, x = _module(), torch.randn(2, 12, 5, 7, dtype=torch.float64)
    expected = reference.bam_map(x, _spatial_layers(module), dilation=2).sigmoid()
    assert expected.std() > 1e-2
    torch.testing.assert_close(module.attention_map(x), expected, rtol=1e-10, atol=1e-12)


def test_both_branches_count():
    module, x = _module(), torch.randn(1, 12, 5, 7, dtype=torch.float64)
    gates = module(x) / x
    assert (gates.min() > 1) and (gates.max() < 2)
    assert (gates[:, 1:] / gates[:, :1] - 1).abs().max() > 1e-2  # differs between channels
    assert (gates[..., 1:] / gates[..., :1] - 1).abs().max() > 1e-2  # and between positions


def test_every_parameter_learns():
    torch.manual_seed(0)
    module = BAM(32, 4)
    module(torch.randn(6, 32, 5, 7)).square().sum().backward()
    assert not [name for name, parameter in module.named_parameters() if parameter.grad.abs().max() < 1e-5]


def test_training_on_one_image_names_the_fix():
    module, x = BAM(8), torch.randn(1, 8, 5, 7)
    with pytest.raises(ValueError, match="at least 2 images, got 1; raise the batch size"):
        module(x)
    assert module.eval()(x).shape == x.shape


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="reduction.*at least 1.*-2"):
        BAM(8, -2)
    with pytest.raises(ValueError, match="dilation.*at least 1.*0"):
        BAM(8, dilation=0)
