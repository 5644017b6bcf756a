"""Non-local blocks: every position gathers from all positions, with one of four pairwise functions.

Wang et al., "Non-local Neural Networks", CVPR 2018, arXiv 1711.07971.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.conv_norm import ConvNorm
from danseg.attention.parts.query_positions import flat_index, positions_first
from danseg.attention.parts.views import ShowsAttention, View
from danseg.ops import attention, concatenation_attention
from danseg.ops.exporting import exporting
from danseg.ops.inputs import energy_dtype
from danseg.ops.products import dot_product, energies

MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
NormLayer = Callable[[int], nn.Module] | Literal["batch_norm"] | None

_CONV: dict[int, Callable[..., nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


class NonLocal2d(ShowsAttention, nn.Module):
    """Non-local block on a feature map, in linear memory for all four pairwise functions.

    For feature map ``x`` with N positions i, j::

        θ, φ, g = theta(x), phi(x), g(x)                                   # 1x1 convolutions
        out_i = x_i + conv_out(Σ_j f(x_i, x_j) g_j / C(x_i))
        gaussian:           f = exp(x_i · x_j)            C = Σ_j f        # a softmax
        embedded_gaussian:  f = exp(θ_i · φ_j / √C')      C = Σ_j f        # a softmax
        dot_product:        f = θ_i · φ_j                 C = N
        concatenation:      f = relu(w · [θ_i, φ_j])      C = N

    The softmax forms never hold the N x N map (:func:`danseg.ops.attention`). The dot product is
    linear in N by associativity, θ (φᵀ g): C'² numbers instead of N². Concatenation sorts
    (:func:`danseg.ops.concatenation_attention`). There ``w · [θ_i, φ_j]`` is the sum of one number for
    i and one for j, so θ and φ are not computed at all unless pooling lies between them and ``w``.

    Paper: Wang et al., "Non-local Neural Networks", CVPR 2018, arXiv 1711.07971, equations 1 to 6.
    Parameter names and results are mmcv's. As in mmcv and in the authors' code, the embedded Gaussian
    divides its energies by √C', which the paper does not do; ``use_scale=False`` gives the paper's form.
    With ``sub_sample=True`` pooling follows the projections φ and g, as in mmcv. The authors' code pools
    ``x`` before it projects it, and ``sub_sample="input"`` does so too; a maximum and a projection cannot
    change places. That code pools by default, this module does not.

    Args:
        in_channels: channels C of the input and of the output.
        reduction: C' = C / reduction, at least 1.
        use_scale: divide the energies of the embedded Gaussian by √C'.
        mode: the pairwise function: ``gaussian``, ``embedded_gaussian``, ``dot_product`` or
            ``concatenation``.
        sub_sample: max-pool keys and values by 2 in height and width, for a quarter of the work: True
            pools the projections, ``"input"`` pools what is projected.
        norm_layer: builds the normalisation after ``conv_out`` for a given number of channels;
            ``"batch_norm"`` is batch normalisation for the input's dimensions, None leaves it out.
            The normalisation starts at zero (without it, ``conv_out`` does), so that the block
            starts as the identity.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a channel count or reduction below 1, an unknown mode, or another ``sub_sample``.
    """

    dims = 2

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        use_scale: bool = True,
        mode: str = "embedded_gaussian",
        sub_sample: bool | Literal["input"] = False,
        norm_layer: NormLayer = "batch_norm",
    ) -> None:
        super().__init__()
        if in_channels < 1 or reduction < 1:
            raise ValueError(
                f"in_channels and reduction must be at least 1, got {in_channels} and {reduction}"
            )
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        if sub_sample not in (True, False, "input"):
            raise ValueError(f'sub_sample must be True, False or "input", got {sub_sample!r}')
        if isinstance(norm_layer, str) and norm_layer != "batch_norm":
            raise ValueError(
                f'norm_layer must be "batch_norm", None or a function that makes a layer, got {norm_layer!r}'
            )
        self.in_channels = in_channels
        self.mode = mode
        self.use_scale = use_scale
        self.sub_sample = sub_sample
        inter_channels = max(1, in_channels // reduction)
        conv = _CONV[self.dims]
        if norm_layer == "batch_norm":
            norm_layer = _BATCH_NORM[self.dims]
        # mmcv's order, so that optimizer states load as well: they refer to parameters by number.
        self.g = self._pooled(ConvNorm(in_channels, inter_channels, conv=conv))
        self.conv_out: nn.Module = ConvNorm(inter_channels, in_channels, norm_layer=norm_layer, conv=conv)
        if mode != "gaussian":
            self.theta = ConvNorm(in_channels, inter_channels, conv=conv)
            self.phi = self._pooled(ConvNorm(in_channels, inter_channels, conv=conv))
        if mode == "concatenation":
            # A 2d convolution in the 1d and 3d forms too, as in mmcv; it is applied as two vectors.
            self.concat_project = ConvNorm(2 * inter_channels, 1, bias=False)
        self.init_weights()

    def _pooled(self, projection: ConvNorm) -> nn.Module:
        # mmcv's names: the projection is layer 0 if pooling follows it.
        pooled = self.sub_sample and self.sub_sample != "input"
        return nn.Sequential(projection, _HalfSize(self.dims)) if pooled else projection

    def _source(self, x: Tensor) -> Tensor:
        """What ``g`` and ``phi`` project: the input, or the pooled input."""
        return _half_size(x) if self.sub_sample == "input" else x

    def init_weights(self) -> None:
        """Draw small projections and set the last layer to zero: the block starts as the identity."""
        for name in ("g", "theta", "phi"):
            if hasattr(self, name):
                conv = self._projection(name)
                nn.init.normal_(conv.weight, std=0.01)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)
        if "concat_project" in self._modules:
            nn.init.kaiming_normal_(self.concat_project.conv.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(self.conv_out, ConvNorm):  # a subclass may leave it out
            last = self.conv_out.norm or self.conv_out.conv
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def _projection(self, name: str) -> Any:
        """The convolution behind ``g``, ``theta`` or ``phi``, pooled or not."""
        module = getattr(self, name)
        return (module[0] if isinstance(module, nn.Sequential) else module).conv

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        check_feature_map(self, x)
        return x + self.conv_out(self._gather(x)).to(x.dtype)

    def _gather(self, x: Tensor) -> Tensor:
        """The weighted values (B, C', H, W), which ``forward`` projects and adds to ``x``."""
        return self._pairwise(x, positions_first(self.g(self._source(x))))

    def _pairwise(self, x: Tensor, value: Tensor) -> Tensor:
        """``Σ_j f_ij value_j / C_i`` as (B, C', H, W), for values (B, M, C')."""
        if self.mode == "concatenation":
            out = concatenation_attention(*self._halves(x), value)
        elif self.mode == "dot_product":
            out = dot_product(self._query(x), self._key(x), value, scale=1 / value.shape[1])
        else:
            # Under autocast the values are 16 bits wide, while the Gaussian form's queries and keys are x.
            query, key = self._query(x).to(value.dtype), self._key(x).to(value.dtype)
            out = attention(query, key, value, scale=self._scale(query))
        return out.transpose(1, 2).unflatten(2, x.shape[2:])

    def _query(self, x: Tensor) -> Tensor:
        """Queries (B, N, C'); the Gaussian form has no embedding, so there they have C channels."""
        return positions_first(x if self.mode == "gaussian" else self.theta(x))

    def _key(self, x: Tensor) -> Tensor:
        """Keys (B, M, C'), or C channels in the Gaussian form; M < N with ``sub_sample``."""
        if self.mode != "gaussian":
            return positions_first(self.phi(self._source(x)))
        return positions_first(_half_size(x) if self.sub_sample else x)

    def _scale(self, query: Tensor) -> float:
        return query.shape[-1] ** -0.5 if self.mode == "embedded_gaussian" and self.use_scale else 1.0

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two terms a (B, N) and b (B, M) of ``w · [θ_i, φ_j] = a_i + b_j``."""
        to_query, to_key = self.concat_project.conv.weight.flatten(1).chunk(2, dim=1)  # (1, C') each
        a = _folded(x, self._projection("theta"), to_query)
        if isinstance(self.phi, nn.Sequential):  # max-pooling lies between φ and w
            return a, (to_key @ self.phi(x).flatten(2)).squeeze(1)
        return a, _folded(self._source(x), self._projection("phi"), to_key)

    def attention_map(self, x: Tensor, positions: Sequence[tuple[int, ...]]) -> Tensor:
        """The weights ``f(x_i, x_j) / C(x_i)`` of the given positions i.

        Args:
            x: the module's input.
            positions: P positions in the feature map, such as (row, column).

        Returns:
            ``(B, P, H, W)``, at half the height and width with ``sub_sample``, in at least
            float32. In the two Gaussian forms each map sums to 1. In the other two it may have any
            sum, and the weights of the dot product may be negative. Only the P rows are computed.

        Raises:
            ValueError: when a position lies outside the map, or none is given.
        """
        return self._rows(x)(positions)

    def _rows(self, x: Tensor) -> Callable[[Sequence[tuple[int, ...]]], Tensor]:
        """Rows (B, P, *size) of the map ``f / C``."""
        check_feature_map(self, x)
        size = tuple(x.shape[2:])
        key_size = tuple(_half_size(x[:, :1]).shape[2:]) if self.sub_sample else size
        weights = self._weights(x)

        def rows(positions: Sequence[tuple[int, ...]]) -> Tensor:
            return weights(flat_index(positions, size, x.device)).unflatten(2, key_size)

        return rows

    def _weights(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Rows (B, P, M) of the map ``f / C``, as a function of P row-major indices of positions."""
        if self.mode == "concatenation":
            a, b = (half.to(energy_dtype(half.dtype)) for half in self._halves(x))
            return lambda index: (a[:, index, None] + b[:, None, :]).relu() / b.shape[1]
        query, key = self._query(x), self._key(x)
        if self.mode == "dot_product":
            return lambda index: energies(query[:, index], key) / key.shape[1]
        scale = self._scale(query)
        return lambda index: (energies(query[:, index], key) * scale).softmax(dim=-1)

    @property
    def _values(self) -> str:
        return "weights" if self.mode in ("dot_product", "concatenation") else "shares"

    def attention_views(self) -> tuple[View, ...]:
        return (View("position", self._rows, values=self._values),)

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return x

    def extra_repr(self) -> str:
        return f"mode={self.mode}, use_scale={self.use_scale}, sub_sample={self.sub_sample}"


class NonLocal1d(NonLocal2d):
    """Non-local block on a sequence; everything else is as in :class:`NonLocal2d`.

    For sequence ``x`` with steps i, j::

        out_i = x_i + conv_out(Σ_j f(x_i, x_j) g_j / C(x_i))

    Paper: Wang et al., "Non-local Neural Networks", CVPR 2018, arXiv 1711.07971, equations 1 to 6.

    Shapes: ``(B, C, L)`` to ``(B, C, L)``.
    """

    dims = 1


class NonLocal3d(NonLocal2d):
    """Non-local block in space and time; everything else is as in :class:`NonLocal2d`.

    For clip ``x`` with positions i, j over all frames::

        out_i = x_i + conv_out(Σ_j f(x_i, x_j) g_j / C(x_i))

    Paper: Wang et al., "Non-local Neural Networks", CVPR 2018, arXiv 1711.07971, equations 1 to 6.
    As in the paper, ``sub_sample`` pools in space alone.

    Shapes: ``(B, C, T, H, W)`` to ``(B, C, T, H, W)``.
    """

    dims = 3


class _HalfSize(nn.Module):
    """:func:`_half_size` as a layer."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return _half_size(x)


def _half_size(x: Tensor) -> Tensor:
    """Max-pool by 2 in length, or in height and width; a side of 1 stays 1. The dtype stays."""
    sides = x.shape[2:]
    if exporting():
        return _half_size_of_any(x)
    kernel = [min(2, side) for side in sides]
    if len(sides) == 3:
        kernel[0] = 1
    return _POOL[len(sides)](x, kernel).to(x.dtype)  # autocast widens the 3d form


def _half_size_of_any(x: Tensor) -> Tensor:
    """:func:`_half_size` for sides that are not known yet; one of 1 gets a second position, the smallest."""
    if x.dim() == 3:  # PyTorch exports its 1d form for one length
        x = F.pad(x, (0, 1 // x.shape[2]), value=-torch.inf)
        return F.max_pool2d(x[:, :, None], (1, 2))[:, :, 0]
    x = F.pad(x, (0, 1 // x.shape[-1], 0, 1 // x.shape[-2]), value=-torch.inf)
    return F.max_pool2d(x, 2) if x.dim() == 4 else F.max_pool3d(x, (1, 2, 2))


def _folded(x: Tensor, projection: Any, row: Tensor) -> Tensor:
    """``row · projection(x)`` (B, N) for a row (1, C'), computed as ``(row · weight) · x``."""
    weight = row @ projection.weight.flatten(1)  # (1, C)
    return (weight @ x.flatten(2)).squeeze(1) + row @ projection.bias
