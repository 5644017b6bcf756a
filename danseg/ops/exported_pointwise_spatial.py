"""Point-wise spatial attention in PyTorch's own operators, for files: a loop over the rows of queries."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from danseg.ops.exporting import scripted, stacked
from danseg.ops.inputs import energy_dtype


def exported_pointwise_spatial(
    x: Tensor, hidden: Tensor, weight: Tensor, mask_size: Sequence[int], kind: str, softmax: bool
) -> Tensor:
    """:func:`danseg.ops.pointwise_spatial_attention` of ``x`` (B, C, H, W) and ``hidden`` (B, K, H, W).

    A row's cells of the mask are selected before the product with them, and a row and a column of zeros stand
    for all that is outside the mask. So a row's energies are one product and one gather.
    """
    wide = energy_dtype(hidden.dtype)
    hidden = hidden.to(wide).permute(0, 2, 3, 1).contiguous()  # (B, H, W, K)
    cells = F.pad(weight.to(wide).unflatten(0, list(mask_size)), (0, 0, 0, 1, 0, 1))  # (MH + 1, MW + 1, K)
    height, width = x.shape[2:]
    value = x.flatten(2).transpose(1, 2)  # (B, N, C)
    columns = _cells_of(torch.arange(width, device=x.device), width, mask_size[1], kind)  # (W, W)
    if torch.jit.is_tracing():
        out = scripted(_by_rows)(value, hidden, cells, columns, kind == "collect", softmax)  # (H, B, W, C)
        return out.permute(1, 3, 0, 2)

    def row(index: Tensor) -> Tensor:
        return _row(index, value, hidden, cells, columns, kind == "collect", softmax)

    out = stacked(height, row, value.new_zeros(height, x.shape[0], width, x.shape[1]))
    return out.permute(1, 3, 0, 2)


def _by_rows(
    value: Tensor, hidden: Tensor, cells: Tensor, columns: Tensor, collect: bool, softmax: bool
) -> Tensor:
    """The loop in TorchScript, which cannot take a function."""
    batch, height, width = hidden.shape[0], hidden.shape[1], hidden.shape[2]
    out = torch.zeros([height, batch, width, value.shape[2]], dtype=value.dtype, device=value.device)
    for i in range(height):
        index = torch.full([1], i, dtype=torch.long, device=value.device)
        out[i] = _row(index, value, hidden, cells, columns, collect, softmax)
    return out


def _row(
    index: Tensor,
    value: Tensor,
    hidden: Tensor,
    cells: Tensor,
    columns: Tensor,
    collect: bool,
    softmax: bool,
) -> Tensor:
    """Outputs (B, W, C) of the queries' row ``index`` (1,); ``columns`` (W, W) [query, source] are cells."""
    # Sizes are spelt out: inside a loop, the older ONNX exporter does not know how many dimensions there are.
    batch, height, width, features = hidden.shape[0], hidden.shape[1], hidden.shape[2], hidden.shape[3]
    across = cells.shape[1]  # MW + 1
    rows = _cells_of(
        index, height, cells.shape[0] - 1, "collect" if collect else "distribute"
    )  # (1, H) [source]
    cells = cells.index_select(0, rows[0])  # (H, MW + 1, K)
    if collect:
        given = hidden.index_select(1, index)[:, 0]  # (B, W, K)
        numbers = torch.matmul(given, cells.reshape(height * across, features).transpose(0, 1))
        numbers = numbers.reshape(batch, width, height, across)
        places = columns[None, :, None].expand(batch, width, height, width)  # [.., query, .., source]
        energy = numbers.gather(3, places).reshape(batch, width, height * width)
    else:
        numbers = torch.matmul(hidden, cells.transpose(1, 2))  # (B, H, W, MW + 1) [.., source]
        places = columns.transpose(0, 1)[None, None].expand(
            batch, height, width, width
        )  # [.., source, query]
        energy = numbers.gather(3, places).reshape(batch, height * width, width).transpose(1, 2)
    # (B, W, N)
    weights = energy.softmax(-1) if softmax else energy
    return torch.matmul(weights.to(value.dtype), value)


def _cells_of(queries: Tensor, length: int, mask_length: int, kind: str) -> Tensor:
    """Along an axis: the mask's cell (Q, length) from a query to a source, or ``mask_length``."""
    sources = torch.arange(length, device=queries.device)
    away = sources - queries[:, None]
    cell = (away if kind == "collect" else -away) + (mask_length - 1) // 2
    return torch.where((cell >= 0) & (cell < mask_length), cell, mask_length)
