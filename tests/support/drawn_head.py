"""The decode heads as the tests take them: small, and drawn at random, on any device."""

import torch
from mmseg.registry import MODELS
from torch import nn

import danseg.heads
from benchmarks.exported_files import draw
from own_test import own_test
from small_head import COMMON

Device = str | torch.device
HEADS = {name: getattr(danseg.heads, name) for name in danseg.heads.__all__}


def plain(name: str, **arguments) -> nn.Module:
    return MODELS.build({"type": name, **COMMON, **own_test(HEADS[name]).ARGS, **arguments})


def build(name: str, dtype: torch.dtype = torch.float32, device: Device = "cpu", **arguments) -> nn.Module:
    torch.manual_seed(0)
    head = plain(name, **arguments)
    draw(head)
    return head.to(device, dtype)
