"""Conversions between feature maps and positions: maps as sequences, (row, column) pairs as indices."""

from collections.abc import Sequence

import torch
from torch import Tensor

_AXES = {1: ("step",), 2: ("row", "column"), 3: ("frame", "row", "column")}


def positions_first(x: Tensor) -> Tensor:
    """(B, C, H, W) as a (B, H·W, C) view; any number of spatial dimensions."""
    return x.flatten(2).transpose(1, 2)


def flat_index(positions: Sequence[tuple[int, ...]], size: tuple[int, ...], device: torch.device) -> Tensor:
    """Row-major indices (P,) of ``positions`` in a map of ``size``, such as (row, column) in (height, width).

    Raises:
        ValueError: when a position lies outside the map or has another number of dimensions,
            or when none is given.
    """
    axes = _AXES[len(size)]
    if len(positions) == 0:
        raise ValueError(f"attention_map needs at least one ({', '.join(axes)}) position, got none")
    index = []
    for position in positions:
        if len(position) != len(size):
            raise ValueError(f"a position must be ({', '.join(axes)}), got {tuple(position)}")
        if not all(0 <= place < side for place, side in zip(position, size, strict=True)):
            named = ", ".join(f"{axis} {place}" for axis, place in zip(axes, position, strict=True))
            allowed = ", ".join(
                f"{axis}s go from 0 to {side - 1}" for axis, side in zip(axes, size, strict=True)
            )
            raise ValueError(f"position ({named}) lies outside the feature map; {allowed}")
        flat = 0
        for place, side in zip(position, size, strict=True):
            flat = flat * side + place
        index.append(flat)
    return torch.tensor(index, device=device)
