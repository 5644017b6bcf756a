"""Non-local networks: one non-local block between the head's convolutions.

Wang et al., "Non-local Neural Networks", CVPR 2018, arXiv 1711.07971.
"""

from typing import Literal

from mmseg.registry import MODELS
from torch import Tensor

from danseg.attention import NonLocal2d
from danseg.heads.base import ContextHead
from danseg.norm_layer import norm_layer_of


@MODELS.register_module()
class NonLocalHead(ContextHead):
    """Decode head of Non-local networks, in linear memory and trainable in all four modes.

    Parameter names are those of mmseg's ``NLHead``: weights load in both directions under
    ``strict=True``, and outputs and losses are equal.

    Args:
        reduction: the block works with ``channels / reduction`` channels.
        use_scale: divide the energies of the embedded Gaussian by the square root of that number.
        mode: ``gaussian``, ``embedded_gaussian``, ``dot_product`` or ``concatenation``.
        sub_sample: max-pool keys and values by 2, which mmseg's head does not offer: True pools after the
            projections, ``"input"`` before them.
        **kwargs: as for :class:`danseg.heads.base.ContextHead`.
    """

    def __init__(
        self,
        reduction: int = 2,
        use_scale: bool = True,
        mode: str = "embedded_gaussian",
        sub_sample: bool | Literal["input"] = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.nl_block = NonLocal2d(
            self.channels, reduction, use_scale, mode, sub_sample, norm_layer_of(self.norm_cfg)
        )

    def attend(self, x: Tensor) -> Tensor:
        return self.nl_block(x)
