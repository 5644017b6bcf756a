"""Convolution layers that compute by Winograd's algorithm, where that is faster."""

import math

import torch
from torch import Tensor, nn

from danseg.ops.winograd_convolution import evaluated_weights, winograd_convolution

# Measured on a CPU with AVX-512: from 256 channels on, transforming tiles costs less than the
# multiplications that it saves; at 128 it takes as long as the direct convolution.
_FEWEST_CHANNELS = 256
# So large a map pays for the evaluation of the weights each time, which leaves the memory to the maps.
_LARGE_MAP = 128 * 256
# Smaller ones have too few tiles for each weight that is read.
_SMALL_MAP = 16 * 32


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution that goes by :func:`danseg.ops.winograd_convolution` on maps where that is faster.

    For maps below 128x256 it keeps the evaluated weights from the first one on, four times as many as the
    weights; for larger ones it evaluates them each time. It is for inference.
    """

    _evaluated: Tensor | None = None

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "WinogradConv2d":
        """A layer with a convolution's parameters and settings, where :func:`takes`."""
        layer = cls.__new__(cls)
        layer.__dict__.update(conv.__dict__)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, K, H', W')``."""
        positions = math.prod(x.shape[2:])
        if positions < _SMALL_MAP or x.dtype != torch.float32 or x.device.type != "cpu":
            return super().forward(x)
        evaluated = self._evaluated
        if evaluated is None:
            evaluated = evaluated_weights(self.weight)
            if positions < _LARGE_MAP:
                self._evaluated = evaluated
        return winograd_convolution(
            x,
            self.weight,
            self.bias,
            evaluated=evaluated,
            padding=self.padding,  # type: ignore[arg-type]  # takes() refuses names
            dilation=self.dilation,  # type: ignore[arg-type]
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, by Winograd's algorithm"


def takes(layer: nn.Module) -> bool:
    """Whether a layer is a convolution that :class:`WinogradConv2d` computes faster on some maps."""
    return (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and min(layer.in_channels, layer.out_channels) >= _FEWEST_CHANNELS
    )
