"""Convolution layers for inference on CPUs that compute what PyTorch's do in less time.

Which ones pay was measured on a CPU with AVX-512: docs/performance.md.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from danseg.ops.exporting import exporting
from danseg.ops.operator import differentiated
from danseg.ops.products import product
from danseg.ops.winograd_convolution import POINTS, evaluated_weights, winograd_convolution

# From 256 channels on, transforming tiles costs less than the multiplications that it saves; at 128 it takes
# as long as the direct convolution.
_FEWEST_CHANNELS = 256
# Smaller ones have too few tiles for each weight that is read.
_SMALL_MAP = 16 * 32


class Workspace:
    """Memory that the layers of a model use one after the other, and that copies of the model share.

    Memory that is new to a process takes longer to write to than weights take to be evaluated. Threads that
    run the model at the same time have a piece each.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    @contextmanager
    def lent(self, numbers: int) -> Iterator[Tensor]:
        """So many float32 numbers of any value, for the time of the block."""
        try:
            piece = self._free.pop()
        except IndexError:
            piece = torch.empty(0)
        if len(piece) < numbers:
            piece = torch.empty(numbers)
        try:
            yield piece[:numbers]
        finally:
            self._free.append(piece)

    def __deepcopy__(self, _: dict) -> "Workspace":
        return self

    def __reduce__(self) -> tuple:
        return Workspace, ()


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution that goes by :func:`danseg.ops.winograd_convolution` on maps where that is faster.

    Its weights, evaluated, are four times as many. They are evaluated each time, into the model's workspace,
    which takes a twentieth of the convolution's time: those of DANet-R50 would be half a gigabyte if kept.
    """

    workspace: Workspace

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, K, H', W')``."""
        if exporting() or math.prod(x.shape[2:]) < _SMALL_MAP or not _on_cpu(x):
            return super().forward(x)
        if torch.compiler.is_compiling():
            return self._convolved(x, evaluated_weights(self.weight))
        with self.workspace.lent(POINTS * self.out_channels * self.in_channels) as room:
            room = room.view(POINTS, self.out_channels, self.in_channels)
            return self._convolved(x, evaluated_weights(self.weight, out=room))

    def _convolved(self, x: Tensor, evaluated: Tensor) -> Tensor:
        return winograd_convolution(
            x,
            self.weight,
            self.bias,
            evaluated=evaluated,
            padding=self.padding,  # type: ignore[arg-type]  # names are refused
            dilation=self.dilation,  # type: ignore[arg-type]
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, by Winograd's algorithm"


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution that is a matrix product where positions come one after the other, channels last.

    The product is :func:`danseg.ops.products.product`: on two threads it takes 0.8 to 0.95 of the processor
    time of PyTorch's convolution. On a single thread, where that goes by another library, it takes half.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, K, H, W)``."""
        channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        if exporting() or not channels_last or not _on_cpu(x) or differentiated(x, self.weight, self.bias):
            return super().forward(x)
        batch, _, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(1, batch * height * width, -1)
        bias = None if self.bias is None else self.bias[None]
        out = product(rows, self.weight.flatten(1)[None], bias)
        return out.view(batch, height, width, -1).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, as a matrix product"


def _on_cpu(x: Tensor) -> bool:
    """Whether a map is one that these layers are for; under autocast it would not stay so."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def faster(model: nn.Module) -> dict[str, nn.Module]:
    """Of a model's layers that have a faster form, that form, with the same parameters, by path."""
    kinds = [(path, layer, _kind(layer)) for path, layer in model.named_modules()]
    made = {path: _of(kind, layer) for path, layer, kind in kinds if kind is not None}
    workspace = Workspace()
    for layer in made.values():
        if isinstance(layer, WinogradConv2d):
            layer.workspace = workspace
            # As evaluated_weights reads them.
            layer.weight = nn.Parameter(
                layer.weight.detach().permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
                requires_grad=layer.weight.requires_grad,
            )
    return made


def _kind(layer: nn.Module) -> type[nn.Conv2d] | None:
    if type(layer) is not nn.Conv2d or layer.stride != (1, 1) or layer.groups != 1:
        return None
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    if layer.kernel_size == (1, 1) and layer.padding == (0, 0):
        return PointwiseConv2d
    wide = min(layer.in_channels, layer.out_channels) >= _FEWEST_CHANNELS
    return WinogradConv2d if layer.kernel_size == (3, 3) and wide else None


def _of(kind: type[nn.Conv2d], layer: nn.Module) -> nn.Module:
    """A layer of another kind with the same parameters, settings and hooks."""
    made = kind.__new__(kind)
    made.__dict__.update(layer.__dict__)
    made._parameters = dict(layer._parameters)
    return made
