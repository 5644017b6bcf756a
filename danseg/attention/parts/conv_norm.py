"""A convolution with a normalisation and a ReLU after it, under the parameter names of published weights."""

from collections.abc import Callable

from torch import Tensor, nn

from danseg.attention.parts.arguments import check_batch_norm


class ConvNorm(nn.Module):
    """A convolution and, if asked for, a normalisation and a ReLU after it.

    Parameter names are those of mmcv's ``ConvModule``, so that its weights load: ``conv.weight``,
    ``conv.bias`` (only without normalisation), and ``bn.*``, ``gn.*`` or ``in.*``, according to the
    kind of normalisation.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd.
        padding: zeros on each side; by default as many as keep the input's size.
        norm_layer: builds the normalisation for a given number of channels; None leaves it out.
        relu: whether a ReLU comes last.
        conv: the convolution's class, for the number of dimensions that the input has.
        bias: whether the convolution has a bias; by default only without normalisation.

    Shapes: ``(B, in_channels, ...)`` to ``(B, out_channels, ...)``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        padding: int | None = None,
        norm_layer: Callable[[int], nn.Module] | None = None,
        relu: bool = False,
        conv: Callable[..., nn.Conv1d | nn.Conv2d | nn.Conv3d] = nn.Conv2d,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        bias = norm_layer is None if bias is None else bias
        padding = kernel_size // 2 if padding is None else padding
        self.conv = conv(in_channels, out_channels, kernel_size, padding=padding, bias=bias)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        self.norm_name: str | None = None
        if norm_layer is not None:
            norm = norm_layer(out_channels)
            self.norm_name = _norm_name(norm)
            self.add_module(self.norm_name, norm)
        self.relu = relu

    @property
    def norm(self) -> nn.Module | None:
        """The normalisation, whatever its name."""
        return None if self.norm_name is None else getattr(self, self.norm_name)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, ...)`` to ``(B, out_channels, ...)``."""
        x = self.conv(x)
        if self.norm is not None:
            check_batch_norm(self.norm, x.shape[0], *x.shape[2:])
            x = self.norm(x)
        return x.relu() if self.relu else x


def _norm_name(norm: nn.Module) -> str:
    for kind, name in (
        (nn.modules.batchnorm._BatchNorm, "bn"),
        (nn.GroupNorm, "gn"),
        (nn.modules.instancenorm._InstanceNorm, "in"),
    ):
        if isinstance(norm, kind):
            return name
    return "norm"
