"""Point-wise spatial attention: each position predicts weights for the positions around it.

Zhao et al., "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018.

Every position predicts one number for each cell of a mask that is centred on it. Other
implementations store these numbers for all positions and all cells; a compiled operator then moves
them into an N x N map. This one works on one row of the feature map at a time, and the backward pass
recomputes the row. It computes only the cells that fall on the map, and moves them with a gather. So
a few times N x W numbers are alive instead of several times N x N.

The two passes are custom operators, as in :mod:`danseg.ops.softmax_attention`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from danseg.ops.inputs import check_one_device, energy_dtype
from danseg.ops.operator import operator

KINDS = ("collect", "distribute")
_NAMES = (
    "danseg.ops.pointwise_spatial_attention",
    "danseg.ops.reference.pointwise_spatial_energies",
)


def pointwise_spatial_attention(
    x: Tensor, hidden: Tensor, weight: Tensor, mask_size: tuple[int, int], kind: str, softmax: bool = True
) -> Tensor:
    """Gather features with weights that each position predicts for the positions around it.

    Position i predicts a mask of cells, ``m_i = weight hidden_i``, whose cell (0, 0) lies
    ``(mask_size - 1) // 2`` above and left of i. The energy of source j for query i is::

        collect:     m_i[j - i]         the query decides which sources it reads
        distribute:  m_j[i - j]         the source decides which queries read it

    and 0 outside the mask. The output is ``Σ_j softmax_j(energy_ij) x_j``; without softmax the energies
    themselves are the weights. Energies are held in at least float32.

    Args:
        x: ``(B, C, H, W)``, the features to gather.
        hidden: ``(B, K, H, W)``, the features that the masks are predicted from.
        weight: ``(mask height · mask width, K)``.
        mask_size: height and width of the mask.
        kind: ``collect`` or ``distribute``.
        softmax: whether to apply a softmax over all sources to the energies of a query.

    Returns:
        ``(B, C, H, W)`` with channels last in memory, in the dtype of ``x``, differentiable once.

    Raises:
        ValueError: for an unknown kind, or shapes, dtypes or devices that do not fit.
    """
    _check(hidden, weight, mask_size, kind)
    if (
        x.dim() != 4
        or not x.is_floating_point()
        or x.shape[0] != len(hidden)
        or x.shape[2:] != hidden.shape[2:]
    ):
        raise ValueError(
            "pointwise_spatial_attention takes floating-point x (B, C, H, W) and hidden (B, K, H, W), got x "
            f"{tuple(x.shape)} of {x.dtype} and hidden {tuple(hidden.shape)}"
        )
    check_one_device("pointwise_spatial_attention", x=x, hidden=hidden, weight=weight)
    by_position = (t.permute(0, 2, 3, 1).contiguous() for t in (x, hidden))  # (B, H, W, channels)
    out = _pointwise_spatial_forward(*by_position, weight, list(mask_size), kind, softmax)
    return out.permute(0, 3, 1, 2)


def row_energies(hidden: Tensor, weight: Tensor, mask_size: tuple[int, int], kind: str, row: int) -> Tensor:
    """Energies (B, W, N) of :func:`pointwise_spatial_attention`, of one row's queries for all sources."""
    _check(hidden, weight, mask_size, kind)
    if not 0 <= row < hidden.shape[2]:
        raise ValueError(f"row must be from 0 to {hidden.shape[2] - 1}, got {row}")
    wide = energy_dtype(hidden.dtype)
    mask = _mask(weight.to(wide), mask_size, kind)
    with torch.autocast(hidden.device.type, enabled=False):
        return _energies(hidden.permute(0, 2, 3, 1).to(wide), mask, kind, row).flatten(2)


def _check(hidden: Tensor, weight: Tensor, mask_size: tuple[int, int], kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    mask_height, mask_width = mask_size
    if (
        hidden.dim() != 4
        or 0 in hidden.shape[1:]
        or not hidden.is_floating_point()
        or not weight.is_floating_point()
    ):
        raise ValueError(
            "pointwise_spatial_attention takes floating-point hidden (B, K, H, W) and weight, got hidden "
            f"{tuple(hidden.shape)} of {hidden.dtype} and weight of {weight.dtype}"
        )
    if weight.shape != (mask_height * mask_width, hidden.shape[1]):
        raise ValueError(
            f"a mask of {mask_height}x{mask_width} for hidden {tuple(hidden.shape)} needs a weight of shape "
            f"{(mask_height * mask_width, hidden.shape[1])}, got {tuple(weight.shape)}"
        )


def _mask(weight: Tensor, mask_size: Sequence[int], kind: str) -> Tensor:
    """The weight as (mask height, mask width, K), with its rows in the order of the sources' rows."""
    mask = weight.unflatten(0, mask_size)
    # With distribute, a query reads a source below it through the upper cells of the source's mask.
    return mask if kind == "collect" else mask.flip(0)


def _reach(mask_height: int, height: int, kind: str, row: int) -> tuple[slice, slice]:
    """The rows of sources within the mask's reach of queries in ``row``, and the mask's rows for them."""
    before = (mask_height - 1) // 2 if kind == "collect" else mask_height // 2
    first, last = max(0, row - before), min(height, row - before + mask_height)
    return slice(first, last), slice(first - row + before, last - row + before)


def _cell_index(mask_width: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The mask's column that map column a has for map column b, and whether it exists; both (W, W) [a, b]."""
    places = torch.arange(width, device=device)
    cell = places - places[:, None] + (mask_width - 1) // 2
    return cell.clamp(0, mask_width - 1), (cell >= 0) & (cell < mask_width)


def _energies(hidden: Tensor, mask: Tensor, kind: str, row: int) -> Tensor:
    """Energies (B, W, H, W) of one row's queries for all sources, from ``hidden`` (B, H, W, K)."""
    batch, height, width, _ = hidden.shape
    sources, cells = _reach(len(mask), height, kind, row)
    index, inside = _cell_index(mask.shape[1], width, hidden.device)
    if kind == "collect":
        numbers = hidden[:, row] @ mask[cells].flatten(0, 1).T  # (B, W, R · mask width)
        numbers = numbers.unflatten(2, (-1, mask.shape[1]))
        index, inside = index[:, None], inside[:, None]
        energy = numbers.gather(3, index.expand(*numbers.shape[:3], -1)).masked_fill(~inside, 0)
    else:
        numbers = hidden[:, sources] @ mask[cells].mT  # (B, R, W, mask width)
        energy = numbers.gather(3, index.expand(*numbers.shape[:3], -1)).masked_fill(~inside, 0)
        energy = energy.permute(0, 3, 1, 2)
    return F.pad(energy, (0, 0, sources.start, height - sources.stop))  # 0 outside the mask


def _add_energy_gradients(
    slope: Tensor, hidden: Tensor, mask: Tensor, kind: str, row: int, grad_hidden: Tensor, grad_mask: Tensor
) -> None:
    """Backward pass of :func:`_energies`: add to ``grad_hidden`` and ``grad_mask``.

    ``slope`` (B, W, H, W) is the gradient of the energies.
    """
    batch, height, width, _ = hidden.shape
    sources, cells = _reach(len(mask), height, kind, row)
    index, inside = _cell_index(mask.shape[1], width, hidden.device)
    slope = slope[:, :, sources]  # (B, W, R, W)
    if kind == "collect":
        index, inside = index[:, None], inside[:, None]
    else:
        slope = slope.permute(0, 2, 3, 1)  # (B, R, W, W): source row, source, query
    numbers = slope.new_zeros(*slope.shape[:3], mask.shape[1])
    numbers.scatter_add_(3, index.expand(slope.shape), slope.masked_fill(~inside, 0))
    if kind == "collect":
        numbers = numbers.flatten(2)  # (B, W, R · mask width)
        grad_hidden[:, row] += numbers @ mask[cells].flatten(0, 1)
        numbers = numbers.flatten(0, 1).T
        grad_mask[cells].flatten(0, 1).addmm_(numbers, hidden[:, row].flatten(0, 1))
    else:
        grad_hidden[:, sources] += numbers @ mask[cells]
        for slopes, given in zip(numbers, hidden[:, sources], strict=True):
            grad_mask[cells].baddbmm_(slopes.mT, given)


@operator(*_NAMES)
def _pointwise_spatial_forward(
    x: Tensor, hidden: Tensor, weight: Tensor, mask_size: list[int], kind: str, softmax: bool
) -> Tensor:
    """Output (B, H, W, C) for ``x`` (B, H, W, C) and ``hidden`` (B, H, W, K)."""
    # Allocated before the loop: in memory, a tensor that outlives a row must not lie between two rows.
    out = torch.empty_like(x)
    wide = energy_dtype(hidden.dtype)
    value = x.flatten(1, 2)  # (B, N, C)
    with torch.autocast(x.device.type, enabled=False):
        hidden, mask = hidden.to(wide), _mask(weight.to(wide), mask_size, kind)
        for row in range(x.shape[1]):
            weights = _energies(hidden, mask, kind, row).flatten(2)  # (B, W, N)
            if softmax:
                weights = weights.softmax(dim=-1)
            out[:, row] = weights.to(x.dtype) @ value
    return out


@_pointwise_spatial_forward.register_fake
def _(x, hidden, weight, mask_size, kind, softmax):
    return torch.empty_like(x)


@operator(*_NAMES)
def _pointwise_spatial_backward(
    grad: Tensor, x: Tensor, hidden: Tensor, weight: Tensor, mask_size: list[int], kind: str, softmax: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, hidden and weight.

    With P the weights of a row's queries and G the gradient of their outputs::

        dX = Pᵀ G        dE = P ∘ (G Xᵀ - Σ P ∘ G Xᵀ)        or, without softmax, dE = G Xᵀ
    """
    wide = energy_dtype(hidden.dtype)
    with torch.autocast(x.device.type, enabled=False):
        # All wide: dE is the difference of two similar numbers, and the gradients accumulate over rows.
        value, given = x.flatten(1, 2).to(wide), hidden.to(wide)
        mask = _mask(weight.to(wide), mask_size, kind)
        grad_value, grad_hidden, grad_mask = (torch.zeros_like(t) for t in (value, given, mask))
        for row in range(x.shape[1]):
            g = grad[:, row].to(wide)  # (B, W, C)
            slope = g @ value.mT  # (B, W, N)
            weights = _energies(given, mask, kind, row).flatten(2)
            if softmax:
                weights = weights.softmax(dim=-1)
                slope.mul_(weights)
                slope.addcmul_(weights, slope.sum(-1, keepdim=True), value=-1)
            grad_value.baddbmm_(weights.mT, g)
            slope = slope.unflatten(2, x.shape[1:3])
            _add_energy_gradients(slope, given, mask, kind, row, grad_hidden, grad_mask)
    grad_weight = grad_mask if kind == "collect" else grad_mask.flip(0)
    return (
        grad_value.view_as(x).to(x.dtype),
        grad_hidden.to(hidden.dtype),
        grad_weight.flatten(0, 1).to(weight.dtype),
    )


@_pointwise_spatial_backward.register_fake
def _(grad, x, hidden, weight, mask_size, kind, softmax):
    return torch.empty_like(x), torch.empty_like(hidden), weight.new_empty(weight.shape)


def _save_for_backward(ctx, inputs, output) -> None:
    x, hidden, weight, *ctx.options = inputs
    ctx.save_for_backward(x, hidden, weight)


def _backward(ctx, grad: Tensor):
    return _pointwise_spatial_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.options)


_pointwise_spatial_forward.register_gradient(_save_for_backward, _backward)


def _products(x_shape, hidden_shape, mask_size, kind) -> tuple[int, int]:
    """Multiply-adds of two products: hidden features to masks, and weights with gathered features."""
    batch, height, width, channels = x_shape
    reached = 0
    for row in range(height):
        sources, _ = _reach(mask_size[0], height, kind, row)
        reached += sources.stop - sources.start
    masks = batch * reached * mask_size[1] * width * hidden_shape[3]
    return masks, batch * (height * width) ** 2 * channels


@register_flop_formula(torch.ops.danseg.pointwise_spatial_forward)
def _forward_flops(x_shape, hidden_shape, weight_shape, mask_size, kind, *_args, **_kwargs) -> int:
    masks, gathered = _products(x_shape, hidden_shape, mask_size, kind)
    return 2 * (masks + gathered)


@register_flop_formula(torch.ops.danseg.pointwise_spatial_backward)
def _backward_flops(
    grad_shape, x_shape, hidden_shape, weight_shape, mask_size, kind, *_args, **_kwargs
) -> int:
    masks, gathered = _products(x_shape, hidden_shape, mask_size, kind)
    return 2 * (3 * masks + 2 * gathered)  # the masks again, and two gradients for each product
