"""Disentangled Non-local (DNL): one map that all positions share, and one map of each position's own.

Yin et al., "Disentangled Non-Local Neural Networks", ECCV 2020, arXiv 2006.06668.
"""

import torch
from torch import Tensor, nn

from danseg.attention.non_local import NonLocal2d, NormLayer
from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.query_positions import positions_first


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

    Args:
        in_channels: channels C of the input and of the output.
        reduction: C' = C / reduction, at least 1.
        use_scale: divide the energies of the embedded Gaussian by √C'.
        mode: the pairwise function, as in :class:`NonLocal2d`.
        temperature: divides the energies of the embedded Gaussian.
        norm_layer: as in :class:`NonLocal2d`.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a channel count or reduction below 1, an unknown mode, or a temperature
            that is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        use_scale: bool = True,
        mode: str = "embedded_gaussian",
        temperature: float = 0.05,
        norm_layer: NormLayer = "batch_norm",
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        super().__init__(in_channels, reduction, use_scale, mode, norm_layer=norm_layer)
        self.temperature = temperature
        self.conv_mask = nn.Conv2d(in_channels, 1, 1)

    def _gather(self, x: Tensor) -> Tensor:
        value = self.g(x)  # (B, C', H, W)
        mask = self.unary_map(x).to(value.dtype)  # (B, 1, H, W)
        with torch.autocast(x.device.type, enabled=False):
            unary = mask.flatten(2) @ positions_first(value)  # (B, 1, C')
        return self._pairwise(x, positions_first(value)) + unary.transpose(1, 2)[..., None]

    def unary_map(self, x: Tensor) -> Tensor:
        """The weights ``softmax_j(m_j)`` that all positions share.

        They are (B, 1, H, W) in at least float32; each map sums to 1.
        """
        check_feature_map(self, x)
        mask = self.conv_mask(x)
        wide = mask.to(torch.promote_types(mask.dtype, torch.float32))
        return wide.flatten(2).softmax(dim=-1).unflatten(2, x.shape[2:])

    def _query(self, x: Tensor) -> Tensor:
        return _centred(super()._query(x))

    def _key(self, x: Tensor) -> Tensor:
        return _centred(super()._key(x))

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = super()._halves(x)
        return _centred(a), _centred(b)

    def _scale(self, query: Tensor) -> float:
        scale = super()._scale(query)
        return scale / self.temperature if self.mode == "embedded_gaussian" else scale

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, temperature={self.temperature}"


def _centred(x: Tensor) -> Tensor:
    """Subtract the mean over the positions, which are dimension 1."""
    return x - x.mean(dim=1, keepdim=True)
