"""CCNet: recurrent criss-cross attention between the head's convolutions.

Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation", ICCV 2019, arXiv 1811.11721.
"""

from mmseg.registry import MODELS
from torch import Tensor

from danseg.attention import CrissCrossAttention
from danseg.heads.base import ContextHead


@MODELS.register_module()
class CCNetHead(ContextHead):
    """Decode head of CCNet, with nothing to compile.

    Parameter names are those of mmseg's ``CCHead``: weights load in both directions under
    ``strict=True``, and outputs and losses are equal.

    Args:
        recurrence: how often the attention is applied.
        **kwargs: as for :class:`danseg.heads.base.ContextHead`.
    """

    def __init__(self, recurrence: int = 2, **kwargs) -> None:
        super().__init__(**kwargs)
        self.cca = CrissCrossAttention(self.channels, recurrence)

    def attend(self, x: Tensor) -> Tensor:
        return self.cca(x)
