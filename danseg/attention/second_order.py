"""Global second-order pooling: channels scaled by how they vary together over the image.

Gao et al., "Global Second-order Pooling Convolutional Networks", CVPR 2019, arXiv 1811.12006.
"""

import torch
from torch import Tensor, nn

from danseg.attention.parts.arguments import check_at_least_one, check_batch_norm, check_feature_map
from danseg.attention.parts.channel_gate import ChannelGate
from danseg.attention.parts.conv_norm import ConvNorm
from danseg.ops.inputs import without_autocast


class GlobalSecondOrderPooling(ChannelGate):
    """GSoP-Net's channel gate from the covariance of channels.

    For feature map ``x`` with N positions i::

        y = relu(BN(W_r x))                                           # 1x1 convolution to R channels
        Σ = Σ_i (y_i - ȳ)(y_i - ȳ)ᵀ / N                               # (R, R)
        s_r = V_r BN(Σ)_r                                             # row by row, R to 4 numbers
        out = σ(W_e [s_1; ...; s_R]) · x                              # 4R to C

    Paper: Gao et al., "Global Second-order Pooling Convolutional Networks", CVPR 2019, arXiv 1811.12006,
    section 3.2, the block along channels. As in the authors' code, the covariance's rows are normalised
    and go through a grouped convolution with 4 outputs each. That code applies a ReLU to ``x`` before W_r
    (``relu_first=True``), and in the first stage of a ResNet W_r skips every other row and column
    (``stride=2``). With these two arguments this module is the code's channel attention, its default. Its
    position attention, from the covariance of 8 x 8 pooled positions, and its sums of the two are left out.
    The layers ``reduce.conv``, ``reduce.bn``, ``row_norm``, ``row_conv`` and ``expand`` are the code's
    ``conv_for_DR``, ``bn_for_DR``, ``row_bn``, ``row_conv_group`` and ``fc_adapt_channels``.
    ``conv_for_DR`` has a bias, which the normalisation cancels: subtract it from the running mean of
    ``bn_for_DR``.

    Args:
        in_channels: channels of the input and of the output.
        reduced_channels: R. By default 128, as in the paper, but at most ``in_channels``.
        stride: of W_r, in height and width.
        relu_first: whether W_r takes relu(x).

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a channel count or a stride below 1.
    """

    def __init__(
        self,
        in_channels: int,
        reduced_channels: int | None = None,
        stride: int = 1,
        relu_first: bool = False,
    ) -> None:
        super().__init__()
        if reduced_channels is None:
            reduced_channels = min(128, in_channels)
        check_at_least_one(in_channels=in_channels, reduced_channels=reduced_channels, stride=stride)
        self.in_channels = in_channels
        self.stride = stride
        self.relu_first = relu_first
        rows = reduced_channels
        self.reduce = ConvNorm(in_channels, rows, norm_layer=nn.BatchNorm2d, relu=True)
        self.row_norm = nn.BatchNorm2d(rows)
        self.row_conv = nn.Conv2d(rows, 4 * rows, (rows, 1), groups=rows)
        self.expand = nn.Conv2d(4 * rows, in_channels, 1)

    def _gate(self, x: Tensor) -> Tensor:
        check_feature_map(self, x)
        seen = x[:, :, :: self.stride, :: self.stride]
        reduced = self.reduce(seen.relu() if self.relu_first else seen)
        rows = _covariance(reduced).to(x.dtype).unsqueeze(3)  # (B, R, R, 1), each row as a column
        check_batch_norm(self.row_norm, rows.shape[0], rows.shape[2])
        gate = self.expand(self.row_conv(self.row_norm(rows))).sigmoid()  # (B, C, 1, 1)
        return gate.to(x.dtype)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, relu_first={self.relu_first}"


def _covariance(x: Tensor) -> Tensor:
    """Covariance over positions, (B, R, H, W) to (B, R, R), computed and returned in at least float32."""
    with without_autocast(x):
        x = x.to(torch.promote_types(x.dtype, torch.float32)).flatten(2)  # (B, R, N)
        centred = x - x.mean(dim=2, keepdim=True)
        return centred @ centred.transpose(1, 2) / x.shape[2]
