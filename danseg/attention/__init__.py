"""Attention modules on feature maps: plain ``nn.Module`` classes that need torch alone."""

from danseg.attention.bam import BAM
from danseg.attention.cbam import CBAM
from danseg.attention.channel import ChannelAttention
from danseg.attention.dual import DualAttention
from danseg.attention.efficient_channel import EfficientChannelAttention
from danseg.attention.global_context import GlobalContext
from danseg.attention.position import PositionAttention
from danseg.attention.pyramid_split import PyramidSplitAttention
from danseg.attention.pyramid_split_dual import PyramidSplitDualAttention
from danseg.attention.second_order import GlobalSecondOrderPooling
from danseg.attention.selective_kernel import SelectiveKernel
from danseg.attention.split_attention import SplitAttention
from danseg.attention.squeeze_excitation import SqueezeExcitation
from danseg.attention.triplet import TripletAttention

__all__ = [
    "BAM",
    "CBAM",
    "ChannelAttention",
    "DualAttention",
    "EfficientChannelAttention",
    "GlobalContext",
    "GlobalSecondOrderPooling",
    "PositionAttention",
    "PyramidSplitAttention",
    "PyramidSplitDualAttention",
    "SelectiveKernel",
    "SplitAttention",
    "SqueezeExcitation",
    "TripletAttention",
]
