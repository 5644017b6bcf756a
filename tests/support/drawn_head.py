"""The decode heads as the tests take them: small, and drawn at random, on any device."""

import torch
from mmseg.registry import MODELS
from torch import nn

import danseg.heads
from own_test import own_test
from small_head import COMMON

Device = str | torch.device
HEADS = {name: getattr(danseg.heads, name) for name in danseg.heads.__all__}


def draw(head: nn.Module) -> None:
    """Draw at random the parameters that start at zero, and the batch statistics."""
    generator = torch.Generator().manual_seed(5)
    for parameter in head.parameters():
        if not parameter.any():
            drawn = torch.randn(parameter.shape, generator=generator) * 0.3 + 0.5
            parameter.data.copy_(drawn if parameter.dim() else torch.tensor(0.7))
    for buffer in head.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)


def plain(name: str, **arguments) -> nn.Module:
    return MODELS.build({"type": name, **COMMON, **own_test(HEADS[name]).ARGS, **arguments})


def build(name: str, dtype: torch.dtype = torch.float32, device: Device = "cpu", **arguments) -> nn.Module:
    torch.manual_seed(0)
    head = plain(name, **arguments)
    draw(head)
    return head.to(device, dtype)
