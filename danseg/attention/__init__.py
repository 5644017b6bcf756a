"""Attention modules on feature maps: plain ``nn.Module`` classes that need torch alone."""

from danseg.attention.channel import ChannelAttention
from danseg.attention.dual import DualAttention
from danseg.attention.global_context import GlobalContext
from danseg.attention.position import PositionAttention
from danseg.attention.pyramid_split import PyramidSplitAttention
from danseg.attention.pyramid_split_dual import PyramidSplitDualAttention
from danseg.attention.selective_kernel import SelectiveKernel
from danseg.attention.split_attention import SplitAttention

__all__ = [
    "ChannelAttention",
    "DualAttention",
    "GlobalContext",
    "PositionAttention",
    "PyramidSplitAttention",
    "PyramidSplitDualAttention",
    "SelectiveKernel",
    "SplitAttention",
]
