"""What the heads with one attention module share: convolution, attention, convolution, concatenation."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from danseg.heads.fcn import FullyConvolutionalHead


class ContextHead(FullyConvolutionalHead):
    """A decode head with attention between its two 3x3 convolutions.

    For feature map ``x``::

        y = convs.1(attend(convs.0(x)))
        logits = conv_seg(dropout(conv_cat([x, y])))        # conv_seg(dropout(y)) without concat_input

    It is mmseg's ``FCNHead`` with two convolutions, the same parameter names, and :meth:`attend`
    between the convolutions. A subclass builds its module in ``__init__`` and applies it in
    :meth:`attend`. ``forward`` equals ``cls_seg(_forward_feature(inputs))``, so code that asks for
    the features sees the attention.

    Args:
        **kwargs: ``in_channels``, ``channels``, ``num_classes``, ``concat_input`` and all other
            arguments of mmseg's ``FCNHead`` and ``BaseDecodeHead``, except ``num_convs``, which is 2.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(num_convs=2, **kwargs)

    @abstractmethod
    def attend(self, x: Tensor) -> Tensor:
        """Apply the attention to ``(B, channels, H, W)``; the shape stays."""

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """The features (B, channels, H, W) that ``conv_seg`` classifies."""
        x = self._transform_inputs(inputs)
        y = self.convs[1](self.attend(self.convs[0](x)))
        return self.conv_cat(torch.cat([x, y], dim=1)) if self.concat_input else y
