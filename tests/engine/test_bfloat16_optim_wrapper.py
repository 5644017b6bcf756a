"""Forward passes in bfloat16, weights in float32."""

import torch
from torch import nn

from danseg.engine.bfloat16_optim_wrapper import BFloat16OptimWrapper


def test_forward_passes_run_in_bfloat16(device):
    layer = nn.Linear(2, 2).to(device)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    wrapper = BFloat16OptimWrapper(optimizer=optimizer)
    with wrapper.optim_context(layer):
        assert layer(torch.ones(1, 2, device=device)).dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32
