"""Point-wise spatial attention: weights that a position predicts for the places around it.

Zhao et al., "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018.

Every position predicts one number for each cell of a mask that is centred on it. Other
implementations write those numbers for all positions and all cells, and then a compiled operator
moves them into an N x N map. Here one row of the feature map is taken at a time: only the cells
that fall on the map are computed, and moved by a gather, so that N x W numbers are alive instead
of several times N x N. The backward pass computes each row again.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

KINDS = ("collect", "distribute")


def pointwise_spatial_attention(
    x: Tensor, hidden: Tensor, weight: Tensor, mask_size: tuple[int, int], kind: str, softmax: bool = True
) -> Tensor:
    """Gather features by predicted, position-dependent weights.

    With ``m_i = weight hidden_i`` on a mask of cells, whose cell (0, 0) lies
    ``(mask_size - 1) // 2`` above and left of i, the energy of source j for query i is::

        collect:     m_i[j - i]         i says where it looks
        distribute:  m_j[i - j]         j says where it is seen

    and 0 where the mask does not reach. The output is ``Σ_j softmax_j(energy_ij) x_j``, or the sum
    under the energies themselves. Energies are held in at least float32.

    Args:
        x: ``(B, C, H, W)``, what is gathered.
        hidden: ``(B, K, H, W)``, what the mask is predicted from.
        weight: ``(mask height · mask width, K)``.
        mask_size: height and width of the mask.
        kind: ``collect`` or ``distribute``.
        softmax: whether the energies of a query pass through a softmax over all sources.

    Returns:
        ``(B, C, H, W)`` in the dtype of ``x``, differentiable.

    Raises:
        ValueError: for an unknown kind, or a weight that does not fit the mask.
    """
    values = x.flatten(2).transpose(1, 2)  # (B, N, C)

    def gathered(row: int, values: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
        energy = row_energies(hidden, weight, mask_size, kind, row)  # (B, W, N)
        weights = energy.softmax(dim=-1) if softmax else energy
        return weights.to(values.dtype) @ values

    # Compilers decide for themselves what to keep and what to compute again.
    keep_all = torch.compiler.is_compiling() or not torch.is_grad_enabled()
    rows = [
        gathered(row, values, hidden, weight)
        if keep_all
        else checkpoint(gathered, row, values, hidden, weight, use_reentrant=False, preserve_rng_state=False)
        for row in range(x.shape[2])
    ]
    return torch.stack(rows, dim=1).permute(0, 3, 1, 2)


def row_energies(hidden: Tensor, weight: Tensor, mask_size: tuple[int, int], kind: str, row: int) -> Tensor:
    """Energies (B, W, N) of one row's queries for all sources, of :func:`pointwise_spatial_attention`."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    mask_height, mask_width = mask_size
    if weight.shape != (mask_height * mask_width, hidden.shape[1]):
        raise ValueError(
            f"a mask of {mask_height}x{mask_width} on {hidden.shape[1]} channels needs a weight of shape "
            f"{(mask_height * mask_width, hidden.shape[1])}, got {tuple(weight.shape)}"
        )
    height, width = hidden.shape[2:]
    half_height, half_width = (mask_height - 1) // 2, (mask_width - 1) // 2
    places = torch.arange(width, device=hidden.device)
    with torch.autocast(hidden.device.type, enabled=False):
        wide = torch.promote_types(hidden.dtype, torch.float32)
        hidden, mask = hidden.to(wide), weight.to(wide).unflatten(0, (mask_height, mask_width))
        if kind == "collect":
            # Source row h' uses the mask's row h' - row + half.
            first, last = max(0, row - half_height), min(height, row - half_height + mask_height)
            mask = mask[first - row + half_height : last - row + half_height]  # (R, mask width, K)
            cells = torch.einsum("rck,bkw->brwc", mask, hidden[:, :, row])
            cell = places - places[:, None] + half_width  # [query column, source column]
            inside = (cell >= 0) & (cell < mask_width)
            index = cell.clamp(0, mask_width - 1).expand(*cells.shape[:2], -1, -1)
            energy = cells.gather(3, index)
        else:
            # Source row h' uses the mask's row row - h' + half.
            first, last = max(0, row + half_height - mask_height + 1), min(height, row + half_height + 1)
            mask = mask[row - last + 1 + half_height : row - first + 1 + half_height].flip(0)
            cells = torch.einsum("rck,bkrv->brcv", mask, hidden[:, :, first:last])
            cell = places[:, None] - places + half_width
            inside = (cell >= 0) & (cell < mask_width)
            index = cell.clamp(0, mask_width - 1).expand(*cells.shape[:2], -1, -1)
            energy = cells.gather(2, index)
        energy = torch.where(inside, energy, 0)  # (B, R, W, W)
        energy = F.pad(energy, (0, 0, 0, 0, first, height - last))  # (B, H, W, W), 0 out of the mask's reach
    return energy.transpose(1, 2).flatten(2)
