"""Attention modules on feature maps: plain ``nn.Module`` classes that need torch alone."""

from danseg.attention.channel import ChannelAttention
from danseg.attention.dual import DualAttention
from danseg.attention.position import PositionAttention

__all__ = ["ChannelAttention", "DualAttention", "PositionAttention"]
