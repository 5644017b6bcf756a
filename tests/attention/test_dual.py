"""DualAttention against the sum of DANet's two equations in float64."""

import torch
from torch import nn

from danseg.attention import DualAttention
from danseg.ops import reference

PARAMETER_NAMES = {
    "DualAttention": [
        "pam.key_project.weight",
        "pam.key_project.bias",
        "pam.query_project.weight",
        "pam.query_project.bias",
        "pam.value_project.weight",
        "pam.value_project.bias",
        "pam.gamma.scale",
        "cam.gamma.scale",
    ]
}
ZERO_GRADIENT = {"DualAttention": ["pam.key_project.bias"]}  # the softmax cancels it


def test_equals_the_sum_of_both_equations(device):
    torch.manual_seed(0)
    module, x = (
        DualAttention(12, 3).to(device).double(),
        torch.randn(2, 12, 5, 7, dtype=torch.float64).to(device),
    )
    nn.init.constant_(module.pam.gamma.scale, 0.7)
    nn.init.constant_(module.cam.gamma.scale, 0.3)
    flat = x.flatten(2)
    projections = (module.pam.query_project, module.pam.key_project, module.pam.value_project)
    weights = [t for p in projections for t in (p.weight.flatten(1), p.bias)]
    pam = reference.position_attention(flat, *weights, module.pam.gamma.scale)
    expected = pam + reference.channel_attention(flat, module.cam.gamma.scale)
    torch.testing.assert_close(module(x), expected.view_as(x), rtol=1e-10, atol=1e-12)
