"""CCNetHead beyond tests/heads/test_contract.py; mmseg's CCHead with its missing operator filled in."""

from unittest import mock

import torch
from mmcv.cnn import Scale
from mmseg.models.decode_heads import cc_head
from mmseg.registry import MODELS
from torch import nn

import danseg  # noqa: F401  (registers CCNetHead)
from small_head import COMMON

ARGS = dict()
ZERO_GRADIENT = ["cca.key_conv.bias"]  # the softmax cancels it


class PlainCrissCross(nn.Module):
    """mmcv's module, which needs compiled operators to be imported, over a dense N x N map."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(in_channels, in_channels // 8, 1)
        self.key_conv = nn.Conv2d(in_channels, in_channels // 8, 1)
        self.value_conv = nn.Conv2d(in_channels, in_channels, 1)
        self.gamma = Scale(0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (c(x).flatten(2) for c in (self.query_conv, self.key_conv, self.value_conv))
        height, width = x.shape[2:]
        position = torch.arange(height * width, device=x.device)
        row, column = position // width, position % width
        off = (row[:, None] != row) & (column[:, None] != column)
        energy = (query.transpose(1, 2) @ key).masked_fill(off, -torch.inf)
        out = value @ energy.softmax(dim=-1).transpose(1, 2)
        return self.gamma(out.view_as(x)) + x


def counterpart() -> nn.Module:
    with mock.patch.object(cc_head, "CrissCrossAttention", PlainCrissCross):
        return cc_head.CCHead(**COMMON, **ARGS)


def test_recurrence_reaches_the_attention():
    assert MODELS.build(dict(COMMON, type="CCNetHead", recurrence=3)).cca.recurrence == 3
