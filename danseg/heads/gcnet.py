"""GCNet: one global context vector for all positions.

Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCV Workshops 2019,
arXiv 1904.11492.
"""

from collections.abc import Sequence

from mmseg.registry import MODELS
from torch import Tensor

from danseg.attention import GlobalContext
from danseg.heads.base import ContextHead


@MODELS.register_module()
class GCNetHead(ContextHead):
    """GCNet's decode head.

    Parameter names are those of mmseg's ``GCHead``: weights load in both directions under
    ``strict=True``, and outputs and losses are equal. Unlike in mmseg's head, ``_forward_feature``
    contains the context block.

    Args:
        ratio: channels of the block's bottleneck as a share of ``channels``.
        pooling_type: ``"att"`` or ``"avg"``, as in :class:`danseg.attention.GlobalContext`.
        fusion_types: one or both of ``"channel_add"`` and ``"channel_mul"``.
        **kwargs: as for :class:`danseg.heads.base.ContextHead`.

    Raises:
        ValueError: for a ratio that is not positive, or an unknown pooling or fusion.
    """

    def __init__(
        self,
        ratio: float = 1 / 4,
        pooling_type: str = "att",
        fusion_types: Sequence[str] = ("channel_add",),
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.gc_block = GlobalContext(self.channels, ratio, pooling_type, fusion_types)

    def attend(self, x: Tensor) -> Tensor:
        return self.gc_block(x)
