"""What modules share that weigh branches against each other: how branches are named and shown."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from danseg.attention.parts.views import View, at_once


def kernel_name(size: int, dilation: int) -> str:
    """What a branch with one kernel is called, such as ``3x3, dilation 2``."""
    return f"{size}x{size}" + (f", dilation {dilation}" if dilation > 1 else "")


def where_view(weighed: Callable[[Tensor], Iterable[Tensor]], parts: tuple[str, ...]) -> View:
    """The view "where": which branch wins where, one map a branch.

    At a position p it shows the share of each branch in the size of what they all give there,
    ``‖w_i U_i(p)‖ / Σ_k ‖w_k U_k(p)‖``, which sum to 1 over the branches; equal shares where they give
    nothing.

    Args:
        weighed: gives, for the module's input, the weighed branches ``w_i U_i``, each (B, C, h, w).
        parts: the branches' names.
    """

    def shares(x: Tensor) -> Tensor:
        sizes = torch.stack([_sizes(one) for one in weighed(x)], dim=1)  # (B, S, h, w)
        total = sizes.sum(dim=1, keepdim=True)
        return torch.where(total > 0, sizes / total, 1 / len(parts))

    return View("everywhere", at_once(shares), "where", "gate", parts)


def wide_softmax(energy: Tensor) -> Tensor:
    """Softmax over the branches, dimension 1, in at least float32: a 16-bit one does not sum to 1."""
    return energy.softmax(dim=1, dtype=torch.promote_types(energy.dtype, torch.float32))


def _sizes(features: Tensor) -> Tensor:
    """Lengths (B, h, w) of the vectors of (B, C, h, w), in at least float32, where none overflows."""
    wide = torch.promote_types(features.dtype, torch.float32)
    return torch.linalg.vector_norm(features, dim=1, dtype=wide)
