"""Pyramid split dual attention (:mod:`danseg.attention.pyramid_split_dual`) on a dilated backbone."""

from mmseg.registry import MODELS
from torch import Tensor

from danseg.attention import PyramidSplitDualAttention
from danseg.heads.base import ContextHead


@MODELS.register_module()
class PSDAHead(ContextHead):
    """Decode head with pyramid split dual attention between its convolutions.

    Args:
        query_channels: channels of the position attention's queries and keys; by default an eighth of a
            branch's channels, which are a quarter of ``channels``.
        **kwargs: as for :class:`danseg.heads.base.ContextHead`; ``channels`` divisible by 4.
    """

    def __init__(self, query_channels: int | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.pyramid_split_dual = PyramidSplitDualAttention(self.channels, query_channels=query_channels)

    def attend(self, x: Tensor) -> Tensor:
        return self.pyramid_split_dual(x)
