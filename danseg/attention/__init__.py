"""Attention modules on feature maps: plain ``nn.Module`` classes that need torch alone."""

from danseg.attention.bam import BAM
from danseg.attention.cbam import CBAM
from danseg.attention.channel import ChannelAttention
from danseg.attention.compact_non_local import CompactGeneralizedNonLocal
from danseg.attention.criss_cross import CrissCrossAttention
from danseg.attention.disentangled_non_local import DisentangledNonLocal2d
from danseg.attention.double import DoubleAttention
from danseg.attention.dual import DualAttention
from danseg.attention.efficient_channel import EfficientChannelAttention
from danseg.attention.global_context import GlobalContext
from danseg.attention.interlaced import InterlacedSparseAttention
from danseg.attention.multi_head import MultiHeadSelfAttention
from danseg.attention.non_local import NonLocal1d, NonLocal2d, NonLocal3d
from danseg.attention.pointwise_spatial import PointwiseSpatialAttention
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
    "CompactGeneralizedNonLocal",
    "CrissCrossAttention",
    "DisentangledNonLocal2d",
    "DoubleAttention",
    "DualAttention",
    "EfficientChannelAttention",
    "GlobalContext",
    "GlobalSecondOrderPooling",
    "InterlacedSparseAttention",
    "MultiHeadSelfAttention",
    "NonLocal1d",
    "NonLocal2d",
    "NonLocal3d",
    "PointwiseSpatialAttention",
    "PositionAttention",
    "PyramidSplitAttention",
    "PyramidSplitDualAttention",
    "SelectiveKernel",
    "SplitAttention",
    "SqueezeExcitation",
    "TripletAttention",
]
