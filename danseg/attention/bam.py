"""Bottleneck attention: a channel branch and a spatial branch side by side, summed into one gate.

Park et al., "BAM: Bottleneck Attention Module", BMVC 2018, arXiv 1807.06514.
"""

from collections import OrderedDict

from torch import Tensor, nn

from danseg.attention.parts.arguments import check_batch_norm, check_feature_map
from danseg.attention.parts.channel_gate import as_row
from danseg.attention.parts.pooling import wide_mean
from danseg.attention.parts.views import ShowsAttention, View, at_once

FUSIONS = ("sum", "product")


class BAM(ShowsAttention, nn.Module):
    """BAM's gate over channels and positions at once, with its residual.

    For feature map ``x``::

        M_c = BN(W₂ relu(W₁ mean_hw x))                               # (C, 1, 1)
        M_s = BN(f₃(f₂(f₁(f₀(x)))))                                   # (1, H, W)
        out = x · (1 + σ(M_c + M_s))

    f₀ and f₃ are 1x1 convolutions, f₁ and f₂ dilated 3x3 ones.

    Paper: Park et al., "BAM: Bottleneck Attention Module", BMVC 2018, arXiv 1807.06514, equations 1
    to 4. As in the paper, the branches are added, and a normalisation at their ends makes the two terms
    comparable. The paper leaves open what follows f₀, f₁ and f₂: here it is batch normalisation and ReLU, as
    in the authors' code.

    That code multiplies the branches, and ``fusion="product"`` is its network: σ(M_c · M_s) takes the place
    of σ(M_c + M_s), there is no normalisation at the ends, but one between W₁ and the ReLU, and every layer
    has a bias. The code's weights then load key for key. On maps that are not square, the code
    fails or averages a part of the map; this module averages all of it.

    In training the channel branch is normalised over the batch alone, so it needs at least two images.

    Args:
        in_channels: channels of the input and of the output.
        reduction: both branches work with ``in_channels // reduction`` channels, at least 1.
        dilation: of the two 3x3 convolutions.
        fusion: ``"sum"``, the paper's block, or ``"product"``, the block of the authors' code.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for an argument below 1 or another fusion, and in training for a batch of one image.
    """

    def __init__(self, in_channels: int, reduction: int = 16, dilation: int = 4, fusion: str = "sum") -> None:
        super().__init__()
        if in_channels < 1 or reduction < 1 or dilation < 1:
            raise ValueError(
                "in_channels, reduction and dilation must be at least 1, "
                f"got {in_channels}, {reduction} and {dilation}"
            )
        self.in_channels = in_channels
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}")
        self.fusion = fusion
        hidden = max(1, in_channels // reduction)
        if fusion == "sum":
            # No bias before a normalisation, which would cancel it.
            self.channel = nn.Sequential(
                nn.Conv2d(in_channels, hidden, 1),
                nn.ReLU(),
                nn.Conv2d(hidden, in_channels, 1, bias=False),
                nn.BatchNorm2d(in_channels),
            )
            self.spatial = nn.Sequential(
                nn.Conv2d(in_channels, hidden, 1, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU(),
                nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU(),
                nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU(),
                nn.Conv2d(hidden, 1, 1, bias=False),
                nn.BatchNorm2d(1),
            )
        else:
            self.channel_att = _named("gate_c", _authors_channel_layers(in_channels, hidden))
            self.spatial_att = _named("gate_s", _authors_spatial_layers(in_channels, hidden, dilation))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        return x * (1 + self._gate(x))

    def _gate(self, x: Tensor) -> Tensor:
        m_c, m_s = self._channel_energy(x), self._branches()[1](x)  # (B, C, 1, 1) and (B, 1, H, W)
        energy = m_c + m_s if self.fusion == "sum" else m_c * m_s
        return energy.sigmoid().to(x.dtype)  # (B, C, H, W)

    def _channel_energy(self, x: Tensor) -> Tensor:
        check_feature_map(self, x)
        channel = self._branches()[0]
        for norm in channel.modules():
            check_batch_norm(norm, x.shape[0])
        m_c = channel(wide_mean(x, (2, 3)))
        return m_c if self.fusion == "sum" else m_c[:, :, None, None]

    def _branches(self) -> tuple[nn.Module, nn.Module]:
        return (self.channel, self.spatial) if self.fusion == "sum" else (self.channel_att, self.spatial_att)

    def attention_map(self, x: Tensor) -> Tensor:
        """The spatial branch ``σ(M_s)`` as ``(B, 1, H, W)``, for the module's input ``x`` (B, C, H, W).

        This is the gate of a channel whose ``M_c`` is 0, or 1 where the branches are multiplied. Other
        channels add their ``M_c`` before the sigmoid, or multiply by it.
        """
        check_feature_map(self, x)
        return self._branches()[1](x).sigmoid()

    def attention_views(self) -> tuple[View, ...]:
        """The spatial branch; the channel branch σ(M_c); and the gate itself, averaged over the channels.

        "channels" shows the gate at a position whose ``M_s`` is 0, or 1 where the branches are multiplied.
        "mean gate" cannot be read from the two: the sigmoid of both together is not their product.
        """
        return (
            View("everywhere", at_once(self.attention_map), values="gate"),
            View(
                "channels", at_once(lambda x: as_row(self._channel_energy(x).sigmoid())), "channels", "gate"
            ),
            View("everywhere", at_once(lambda x: wide_mean(self._gate(x), 1)), "mean gate", "gate"),
        )

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return x * (1 + wide_mean(self._gate(x), (1, 2, 3)))

    def extra_repr(self) -> str:
        return f"fusion={self.fusion}"


def _named(name: str, layers: OrderedDict[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict([(name, nn.Sequential(layers))]))


def _authors_channel_layers(in_channels: int, hidden: int) -> OrderedDict[str, nn.Module]:
    return OrderedDict(
        flatten=nn.Flatten(),
        gate_c_fc_0=nn.Linear(in_channels, hidden),
        gate_c_bn_1=nn.BatchNorm1d(hidden),
        gate_c_relu_1=nn.ReLU(),
        gate_c_fc_final=nn.Linear(hidden, in_channels),
    )


def _authors_spatial_layers(in_channels: int, hidden: int, dilation: int) -> OrderedDict[str, nn.Module]:
    def dilated() -> nn.Conv2d:
        return nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation)

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    convs = dict(reduce0=nn.Conv2d(in_channels, hidden, 1), di_0=dilated(), di_1=dilated())
    for name, conv in convs.items():
        layers[f"gate_s_conv_{name}"] = conv
        layers[f"gate_s_bn_{name}"] = nn.BatchNorm2d(hidden)
        layers[f"gate_s_relu_{name}"] = nn.ReLU()
    layers["gate_s_conv_final"] = nn.Conv2d(hidden, 1, 1)
    return layers
