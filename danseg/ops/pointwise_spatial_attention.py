"""Point-wise spatial attention: each position predicts weights for the positions around it.

Zhao et al., "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018.

Every position predicts one number for each cell of a mask that is centred on it. Other
implementations store these numbers for all positions and all cells; a compiled operator then moves
them into an N x N map. This one works on one row of queries at a time, or on a
GPU on as many as fit a memory budget, and the backward pass recomputes them. It computes little more than
the cells that fall on the map, and moves them with a gather (:mod:`danseg.ops.pointwise_spatial_mask`). So
a few times N x W numbers are alive for each row at work, instead of several times N x N.

The two passes are custom operators, as in :mod:`danseg.ops.softmax_attention`.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from danseg.ops.blocks import block_bytes
from danseg.ops.exported_pointwise_spatial import exported_pointwise_spatial
from danseg.ops.exporting import exporting
from danseg.ops.inputs import check_one_device, energy_dtype
from danseg.ops.operator import operator
from danseg.ops.pointwise_spatial_mask import Mask, reach

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
    if exporting():
        return exported_pointwise_spatial(x, hidden, weight, mask_size, kind, softmax)
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


def position_energies(
    hidden: Tensor, weight: Tensor, mask_size: tuple[int, int], kind: str, index: Tensor
) -> Tensor:
    """Energies (B, P, N) of :func:`pointwise_spatial_attention`, of some queries for all sources.

    It is meant for the few queries that a user asks for: it computes one number for each source, where the
    operator's products go by whole rows of queries.

    Args:
        hidden, weight, mask_size, kind: as for :func:`pointwise_spatial_attention`.
        index: ``(P,)``, the row-major indices of the queries.
    """
    _check(hidden, weight, mask_size, kind)
    wide, width = energy_dtype(hidden.dtype), hidden.shape[3]
    places, index = torch.arange(hidden.shape[2:].numel(), device=hidden.device), index[:, None]
    down, right = places // width - index // width, places % width - index % width  # (P, N): query to source
    if kind == "distribute":  # the mask's owner is the source
        down, right = -down, -right
    row, column = down + (mask_size[0] - 1) // 2, right + (mask_size[1] - 1) // 2
    inside = (0 <= row) & (row < mask_size[0]) & (0 <= column) & (column < mask_size[1])
    cell = (row * mask_size[1] + column).masked_fill(~inside, 0)
    given, cells = hidden.flatten(2).mT.to(wide), weight.to(wide)  # (B, N, K), (cells, K)
    with torch.autocast(hidden.device.type, enabled=False):
        if kind == "collect":
            numbers = given[:, index[:, 0]] @ cells.T  # (B, P, cells)
            energy = numbers.gather(2, cell.expand(len(given), -1, -1))
        else:
            energy = torch.stack([(given * cells[of_source]).sum(dim=2) for of_source in cell], dim=1)
    return energy.masked_fill(~inside, 0)


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


def _rows_at_once(x: Tensor, hidden: Tensor, mask_width: int) -> int:
    """Number of query rows in a group."""
    if x.device.type == "cpu":
        return 1  # enough work for a call, and near the caches
    batch, height, width, _ = x.shape
    itemsize = energy_dtype(hidden.dtype).itemsize
    operands = (2 * x.shape[1:].numel() + hidden.shape[1:].numel()) * itemsize
    row_bytes = batch * width * height * max(width, mask_width) * itemsize
    # Alive together: the mask's numbers, energies, the same padded, the last weights or the slope.
    return max(1, min(height, block_bytes(operands, x.device, alive=4) // max(1, row_bytes)))


@operator(*_NAMES)
def _pointwise_spatial_forward(
    x: Tensor, hidden: Tensor, weight: Tensor, mask_size: list[int], kind: str, softmax: bool
) -> Tensor:
    """Output (B, H, W, C) for ``x`` (B, H, W, C) and ``hidden`` (B, H, W, K)."""
    # Allocated before the loop: in memory, a tensor that outlives a group must not lie between two groups.
    out = torch.empty_like(x)
    wide = energy_dtype(hidden.dtype)
    height, width = x.shape[1:3]
    value = x.flatten(1, 2)  # (B, N, C)
    with torch.autocast(x.device.type, enabled=False):
        rows = _rows_at_once(x, hidden, mask_size[1])
        hidden, mask = hidden.to(wide), Mask(weight.to(wide), mask_size, kind, (height, width), rows)
        for first in range(0, height, rows):
            last = min(first + rows, height)
            weights = mask.energies(hidden, first, last).flatten(2)  # (B, R · W, N)
            if softmax:
                weights = weights.softmax(dim=-1)
            out.flatten(1, 2)[:, first * width : last * width] = weights.to(x.dtype) @ value
    return out


@_pointwise_spatial_forward.register_fake
def _(x, hidden, weight, mask_size, kind, softmax):
    return torch.empty_like(x)


@operator(*_NAMES)
def _pointwise_spatial_backward(
    grad: Tensor, x: Tensor, hidden: Tensor, weight: Tensor, mask_size: list[int], kind: str, softmax: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, hidden and weight.

    With P the weights of a group's queries and G the gradient of their outputs::

        dX = Pᵀ G        dE = P ∘ (G Xᵀ - Σ P ∘ G Xᵀ)        or, without softmax, dE = G Xᵀ
    """
    wide = energy_dtype(hidden.dtype)
    height, width = x.shape[1:3]
    with torch.autocast(x.device.type, enabled=False):
        # All wide: dE is the difference of two similar numbers, and the gradients accumulate over rows.
        value, given = x.flatten(1, 2).to(wide), hidden.to(wide)
        rows = _rows_at_once(x, hidden, mask_size[1])
        mask = Mask(weight.to(wide), mask_size, kind, (height, width), rows)
        grad_value, grad_hidden, grad_cells = (torch.zeros_like(t) for t in (value, given, mask.cells))
        for first in range(0, height, rows):
            last = min(first + rows, height)
            g = grad.flatten(1, 2)[:, first * width : last * width].to(wide)  # (B, R · W, C)
            slope = g @ value.mT  # (B, R · W, N)
            weights = mask.energies(given, first, last).flatten(2)
            if softmax:
                weights = weights.softmax(dim=-1)
                slope.mul_(weights)
                slope.addcmul_(weights, slope.sum(-1, keepdim=True), value=-1)
            grad_value.baddbmm_(weights.mT, g)
            slope = slope.unflatten(2, (height, width))
            del weights
            mask.add_gradients(slope, given, first, last, grad_hidden, grad_cells)
    grad_weight = grad_cells[rows - 1 : rows - 1 + mask_size[0]]
    grad_weight = grad_weight if kind == "collect" else grad_weight.flip(0)
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
        sources, _ = reach(mask_size[0], height, kind, row, row + 1)
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
