"""DNLNet: one disentangled non-local block between the head's convolutions.

Yin et al., "Disentangled Non-Local Neural Networks", ECCV 2020, arXiv 2006.06668.
"""

from mmseg.registry import MODELS
from torch import Tensor

from danseg.attention import DisentangledNonLocal2d
from danseg.heads.base import ContextHead
from danseg.norm_layer import norm_layer_of


@MODELS.register_module()
class DNLNetHead(ContextHead):
    """Decode head of DNLNet, in linear memory.

    Parameter names are those of mmseg's ``DNLHead``: weights load in both directions under
    ``strict=True``, and outputs and losses are equal.

    Args:
        reduction: the block works with ``channels / reduction`` channels.
        use_scale: divide the energies of the embedded Gaussian by the square root of that number.
        mode: ``gaussian``, ``embedded_gaussian``, ``dot_product`` or ``concatenation``.
        temperature: divides the energies of the embedded Gaussian.
        use_out: whether a projection ends the block, as in mmseg; False is the authors' form. See
            :class:`danseg.attention.DisentangledNonLocal2d`.
        centring: ``"channel"``, as in mmseg, ``"layer"`` or ``"none"``.
        **kwargs: as for :class:`danseg.heads.base.ContextHead`.
    """

    def __init__(
        self,
        reduction: int = 2,
        use_scale: bool = True,
        mode: str = "embedded_gaussian",
        temperature: float = 0.05,
        use_out: bool = True,
        centring: str = "channel",
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.dnl_block = DisentangledNonLocal2d(
            self.channels,
            reduction,
            use_scale,
            mode,
            temperature,
            norm_layer_of(self.norm_cfg) if use_out else None,
            use_out,
            centring,
        )

    def attend(self, x: Tensor) -> Tensor:
        return self.dnl_block(x)
