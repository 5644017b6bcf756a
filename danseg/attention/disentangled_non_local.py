"""Disentangled Non-local (DNL): one map that all positions share, and one map of each position's own.

Yin et al., "Disentangled Non-Local Neural Networks", ECCV 2020, arXiv 2006.06668.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from danseg.attention.non_local import NonLocal2d, NormLayer
from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.conv_norm import ConvNorm
from danseg.attention.parts.query_positions import positions_first
from danseg.attention.parts.scale import ResidualScale
from danseg.attention.parts.views import View, at_once
from danseg.ops.inputs import without_autocast

# Queries and keys are (B, N, C').
_CENTRED_DIMS: dict[str, tuple[int, ...]] = {"channel": (1,), "layer": (1, 2), "none": ()}


class DisentangledNonLocal2d(NonLocal2d):
    """Non-local block that learns its pairwise and its unary term separately, in linear memory.

    Queries and keys are centred: their means over the map are subtracted. For feature map ``x`` with
    positions i, j::

        q, k, g, m = theta(x), phi(x), g(x), conv_mask(x)                  # 1x1 convolutions
        w_ij = softmax_j((q_i - mean q) · (k_j - mean k) / (√C' · temperature))
        out_i = x_i + conv_out(Σ_j w_ij g_j + Σ_j softmax_j(m_j) g_j)

    Paper: Yin et al., "Disentangled Non-Local Neural Networks", ECCV 2020, arXiv 2006.06668,
    section 3. The temperature and √C' come from the authors' code and from mmseg. Parameter names
    and results are mmseg's. As in mmseg, the other pairwise functions of :class:`NonLocal2d` can
    replace the softmax, then without a temperature. Unlike mmseg's, the Gaussian form does not
    change its input.

    The authors' code, unlike mmseg's, scales the pairwise term by a learned factor that starts at 0, and
    most of its configs leave out the last projection. ``use_out=False`` is this block. Its values have
    C channels and no bias, and nothing normalises their sum::

        x_i + gamma.scale · Σ_j w_ij g_j + Σ_j softmax_j(m_j) g_j

    Its networks "temp_in" have the defaults of the other arguments, "nowd_in" has ``use_scale=False,
    temperature=1``, and "nowd_ln" also ``centring="layer"``. The config of "nowd_in" asks for a centring by
    a name that the code does not know, so the code as published does none: ``centring="none"``. The code's
    ``conv_query``, ``conv_key`` and ``conv_value`` are ``theta``, ``phi`` and ``g`` here.

    Args:
        in_channels: channels C of the input and of the output.
        reduction: C' = C / reduction, at least 1.
        use_scale: divide the energies of the embedded Gaussian by √C'.
        mode: the pairwise function, as in :class:`NonLocal2d`.
        temperature: divides the energies of the embedded Gaussian.
        norm_layer: as in :class:`NonLocal2d`; ``use_out=False`` leaves it out.
        use_out: whether a projection ends the block; without it, a learned scale weighs the pairwise term.
        centring: subtract from queries and keys each channel's mean over the map (``"channel"``), the one
            mean over channels and positions (``"layer"``, not with ``concatenation``), or nothing
            (``"none"``).

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a channel count or reduction below 1, an unknown mode or centring, a temperature
            that is not positive, or a ``norm_layer`` where nothing is normalised.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        use_scale: bool = True,
        mode: str = "embedded_gaussian",
        temperature: float = 0.05,
        norm_layer: NormLayer = "batch_norm",
        use_out: bool = True,
        centring: str = "channel",
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if centring not in _CENTRED_DIMS or (centring == "layer" and mode == "concatenation"):
            raise ValueError(
                f'centring must be one of {", ".join(_CENTRED_DIMS)}, and not "layer" with '
                f'mode="concatenation", got {centring!r} and mode={mode!r}'
            )
        if not use_out and callable(norm_layer):
            raise ValueError(
                f"norm_layer normalises what use_out=False leaves out: leave out one, got {norm_layer}"
            )
        super().__init__(in_channels, reduction, use_scale, mode, norm_layer=norm_layer)
        self.temperature = temperature
        self.centring = centring
        self.conv_mask = nn.Conv2d(in_channels, 1, 1)
        self.gamma = None if use_out else ResidualScale()
        if not use_out:
            self.g = ConvNorm(in_channels, in_channels, bias=False)
            self.conv_out = nn.Identity()
            self.init_weights()

    def _gather(self, x: Tensor) -> Tensor:
        value = self.g(x)  # (B, C', H, W)
        mask = self.unary_map(x).to(value.dtype)  # (B, 1, H, W)
        with without_autocast(x):
            unary = mask.flatten(2) @ positions_first(value)  # (B, 1, C')
        unary = unary.transpose(1, 2)[..., None]
        pairwise = self._pairwise(x, positions_first(value))
        return unary + pairwise if self.gamma is None else self.gamma(unary, pairwise)

    def unary_map(self, x: Tensor) -> Tensor:
        """The weights ``softmax_j(m_j)`` that all positions share.

        They are (B, 1, H, W) in at least float32; each map sums to 1.
        """
        check_feature_map(self, x)
        mask = self.conv_mask(x)
        wide = mask.to(torch.promote_types(mask.dtype, torch.float32))
        return wide.flatten(2).softmax(dim=-1).unflatten(2, x.shape[2:])

    def attention_views(self) -> tuple[View, ...]:
        """A position's own map, the one that all share, and their sum, with which a position gathers."""
        return (
            *super().attention_views(),
            View("everywhere", at_once(self.unary_map), "unary"),
            View("position", self._sum, "sum", "weights"),
        )

    def _sum(self, x: Tensor) -> Callable[[Sequence[tuple[int, ...]]], Tensor]:
        """Rows of ``w_ij + softmax_j(m_j)``, or with the learned factor on ``w_ij``."""
        pairwise, unary = self._rows(x), self.unary_map(x)
        scale = 1.0 if self.gamma is None else self.gamma.scale.clone()
        return lambda positions: scale * pairwise(positions) + unary

    def _query(self, x: Tensor) -> Tensor:
        return self._centred(super()._query(x))

    def _key(self, x: Tensor) -> Tensor:
        return self._centred(super()._key(x))

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = super()._halves(x)
        return self._centred(a), self._centred(b)

    def _scale(self, query: Tensor) -> float:
        scale = super()._scale(query)
        return scale / self.temperature if self.mode == "embedded_gaussian" else scale

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, temperature={self.temperature}, use_out={self.gamma is None}, "
            f"centring={self.centring}"
        )

    def _centred(self, x: Tensor) -> Tensor:
        """Subtract the mean from (B, N, C'), or from (B, N)."""
        dims = _CENTRED_DIMS[self.centring]
        return x - x.mean(dim=dims, keepdim=True) if dims else x
