"""EPSANet: pyramid split attention on a dilated backbone.

Zhang et al., "EPSANet: An Efficient Pyramid Squeeze Attention Block on Convolutional Neural Network",
ACCV 2022, arXiv 2105.14447.
"""

from mmseg.registry import MODELS
from torch import Tensor

from danseg.attention import PyramidSplitAttention
from danseg.heads.base import ContextHead


@MODELS.register_module()
class EPSANetHead(ContextHead):
    """Decode head with pyramid split attention between its convolutions.

    The paper uses the module in the backbone alone
    (``dict(type="VariantResNet", conv2="pyramid_split")``); this head works with any backbone.

    Args:
        reduction: of the squeeze-and-excitation that weights the branches.
        **kwargs: as for :class:`danseg.heads.base.ContextHead`; ``channels`` divisible by 4.
    """

    def __init__(self, reduction: int = 16, **kwargs) -> None:
        super().__init__(**kwargs)
        self.pyramid_split = PyramidSplitAttention(self.channels, reduction=reduction)

    def attend(self, x: Tensor) -> Tensor:
        return self.pyramid_split(x)
