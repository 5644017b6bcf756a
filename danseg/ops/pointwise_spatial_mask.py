"""The masks of point-wise spatial attention: their numbers, moved to the positions that they are for.

A product of features and a mask's cells gives numbers by cell; the attention needs energies by source. Both
lie in rows, so that whole rows move as views in memory, and what is left is one gather over columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def reach(mask_height: int, height: int, kind: str, first: int, last: int) -> tuple[slice, int]:
    """The rows of sources within reach of query rows ``first`` to ``last - 1``, and the mask's rows before.

    The mask's rows are in the order of the sources' rows, see :class:`Mask`.
    """
    before = (mask_height - 1) // 2 if kind == "collect" else mask_height // 2
    return slice(max(0, first - before), min(height, last - 1 - before + mask_height)), before


class Mask:
    """A mask's cells, and how their numbers become energies of a group of query rows and back.

    Query row r reads source row s through the mask's row u = s - r + (rows before). R rows of queries and S
    of sources need U = S + R - 1 rows of the mask. Those outside the mask are zeros here, so that each
    query row of a group has the same sources.

    Args:
        weight: ``(mask height · mask width, K)`` in the energies' dtype.
        size: the map's height and width.
        rows: the largest number of query rows in a group.
    """

    def __init__(
        self, weight: Tensor, mask_size: Sequence[int], kind: str, size: Sequence[int], rows: int
    ) -> None:
        (self.height, self.width), (self.map_height, width) = mask_size, size
        self.kind, self.rows = kind, rows
        cells = weight.unflatten(0, mask_size)
        # With distribute, a query reads a source below it through the upper cells of the source's mask.
        cells = cells if kind == "collect" else cells.flip(0)
        self.cells = F.pad(cells, (0, 0, 0, 0, rows - 1, rows - 1)) if rows > 1 else cells
        # A mask's owner in column a reads or serves column b through the mask's column b - a + before.
        before = (self.width - 1) // 2
        places = torch.arange(width, device=weight.device)
        cell = places - places[:, None] + before  # (W, W) [a, b]
        column = places[:, None] + torch.arange(self.width, device=weight.device) - before  # (W, MW)
        self.outside = (cell < 0) | (cell >= self.width)
        self.no_column = (column < 0) | (column >= width)
        self.cell, self.column = cell.clamp(0, self.width - 1), column.clamp(0, width - 1)
        if kind == "distribute":
            # For a source, the products below have the query rows in reverse, as the mask's rows come.
            rest = torch.arange(rows - 1, -1, -1, device=weight.device)[:, None, None]
            self.cell = (rest * self.width + self.cell.T).flatten(0, 1)  # (R · W, W): query, source column
            self.column = (rest * width + self.column).transpose(0, 1).flatten(1)  # (W, R · MW)
            self.outside, self.no_column = self.outside.T.repeat(rows, 1), self.no_column.repeat(1, rows)

    def _group(self, first: int, last: int) -> tuple[slice, Tensor, slice]:
        """For some query rows: their sources' rows, the U rows of cells, and where in ``cells`` these are."""
        sources, before = reach(self.height, self.map_height, self.kind, first, last)
        start = sources.start - (last - 1) + before + self.rows - 1
        window = slice(start, start + sources.stop - sources.start + last - first - 1)
        return sources, self.cells[window], window

    def energies(self, hidden: Tensor, first: int, last: int) -> Tensor:
        """Energies (B, R · W, H, W) of query rows ``first`` to ``last - 1``, from ``hidden`` (B, H, W, K)."""
        sources, cells, _ = self._group(first, last)
        batch, height, width, _ = hidden.shape
        rows = last - first
        if self.kind == "collect":
            given = hidden.flatten(1, 2)[:, first * width : last * width]
            numbers = given @ cells.flatten(0, 1).T  # (B, R · W, U · MW)
            numbers = _by_source(numbers.view(batch, rows, width, *cells.shape[:2]))
            index = self.cell[:, None].expand(*numbers.shape[:4], -1)
            energy = numbers.gather(4, index).masked_fill_(self.outside[:, None], 0).flatten(1, 2)
        else:
            numbers = _each(hidden[:, sources], _by_query(cells, rows).mT, rows)  # (B, S, W, R · MW)
            numbers = numbers.permute(0, 3, 1, 2)
            queries = slice(-rows * width, None)
            index = self.cell[queries, None].expand(batch, -1, numbers.shape[2], -1)
            energy = numbers.gather(1, index).masked_fill_(self.outside[queries, None], 0)
        if sources == slice(0, height):
            return energy
        return F.pad(energy, (0, 0, sources.start, height - sources.stop))  # 0 outside the mask

    def add_gradients(
        self, slope: Tensor, hidden: Tensor, first: int, last: int, grad_hidden: Tensor, grad_cells: Tensor
    ) -> None:
        """Backward pass of :meth:`energies`: add to the gradients of ``hidden`` and of ``cells``.

        ``slope`` (B, R · W, H, W) is the gradient of the energies. Each of the mask's numbers gathers its
        own; to scatter them would have no order on a GPU.
        """
        sources, cells, window = self._group(first, last)
        batch, _, width, _ = hidden.shape
        rows = last - first
        slope = slope[:, :, sources]
        if self.kind == "collect":
            places = slice(first * width, last * width)
            given = hidden.flatten(1, 2)[:, places]
            make = torch.empty if rows == 1 else torch.zeros  # of several, some reach no source
            numbers = make(batch, rows, width, *cells.shape[:2], dtype=slope.dtype, device=slope.device)
            slope = slope.unflatten(1, (rows, width))  # (B, R, W, S, W)
            index = self.column[:, None].expand(*slope.shape[:4], -1)
            torch.gather(slope, 4, index, out=_by_source(numbers))
            numbers.masked_fill_(self.no_column[:, None], 0)
            numbers = numbers.flatten(3).flatten(1, 2)  # (B, R · W, U · MW)
            grad_hidden.flatten(1, 2)[:, places] += numbers @ cells.flatten(0, 1)
            grad_cells[window].flatten(0, 1).addmm_(numbers.flatten(0, 1).T, given.flatten(0, 1))
        else:
            given = hidden[:, sources]
            slope = slope.permute(0, 2, 3, 1)  # (B, S, W, R · W): source row, source, query
            queries = slice(-rows * self.width, None)
            numbers = slope.gather(3, self.column[:, queries].expand(*slope.shape[:3], -1))
            numbers.masked_fill_(self.no_column[:, queries], 0)  # (B, S, W, R · MW)
            grad_hidden[:, sources] += _each(numbers, _by_query(cells, rows), rows)
            for slopes, entry in zip(numbers, given, strict=True):
                for row, some in enumerate(slopes.split(self.width, dim=2), window.start):
                    grad_cells[row : row + len(entry)].baddbmm_(some.mT, entry)


def _each(given: Tensor, cells: Tensor, rows: int) -> Tensor:
    """``given @ cells`` for (B, S, W, .) and (S, ., .), the view that :func:`_by_query` makes."""
    if rows == 1 or len(given) == 1:
        return given @ cells
    # A product over the whole batch would copy the view, which is several times the mask, B times.
    return torch.stack([entry @ cells for entry in given])


def _by_source(numbers: Tensor) -> Tensor:
    """View (B, R, W, S, mask width) [query row, .., source row] of (B, R, W, U, mask width) in memory order.

    The first source of the last query row has the first of the U rows, of the row before it the second.
    """
    batch, rows, width, count, cells = numbers.shape
    by_batch, by_row, by_place, by_cell_row, _ = numbers.stride()
    return numbers.as_strided(
        (batch, rows, width, count - rows + 1, cells),
        (by_batch, by_row - by_cell_row, by_place, by_cell_row, 1),
        numbers.storage_offset() + (rows - 1) * by_cell_row,
    )


def _by_query(cells: Tensor, rows: int) -> Tensor:
    """View (S, R · mask width, K) of U rows of cells: a source row's R, for the last query row first."""
    return cells.unfold(0, rows, 1).permute(0, 3, 1, 2).flatten(1, 2)
