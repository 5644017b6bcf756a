"""Exact pairwise-ReLU attention in O(N log N): the concatenation form of Non-local networks.

The weight of key j for query i is ``relu(a_i + b_j)``. The usual form concatenates the features of all
N x M pairs and then builds all N x M sums. But query i gives weight to the keys with ``b_j > -a_i`` alone.
Once the keys are sorted by ``b``, largest first, these keys stand at the front, and the sum over them is
``a_i Σ v_j + Σ b_j v_j``. That takes two prefix sums, each read at one place per query. Nothing is
approximated.
"""

import torch
from torch import Tensor

from danseg.ops.inputs import check_alike, energy_dtype


def concatenation_attention(a: Tensor, b: Tensor, value: Tensor) -> Tensor:
    """Mean of the values under the weights ``relu(a_i + b_j)``, in linear memory.

    Equivalent plain code, which needs the whole N x M map::

        (a[:, :, None] + b[:, None, :]).relu() @ value / b.shape[1]

    Sums are accumulated in at least float32.

    Args:
        a: ``(B, N)``, the queries' terms of the weights, floating point.
        b: ``(B, M)``, the keys' terms, same dtype and device.
        value: ``(B, M, D)``, same dtype and device.

    Returns:
        ``(B, N, D)`` in the dtype of ``value``, differentiable with respect to all three.

    Raises:
        ValueError: when shapes, dtypes or devices do not match, or there are no keys.
    """
    if (
        not a.dim() == b.dim() == value.dim() - 1 == 2
        or value.shape[:2] != b.shape
        or a.shape[0] != b.shape[0]
    ):
        raise ValueError(
            f"concatenation_attention takes a (B, N), b (B, M) and value (B, M, D), got a {tuple(a.shape)}, "
            f"b {tuple(b.shape)}, value {tuple(value.shape)}"
        )
    check_alike("concatenation_attention", a=a, b=b, value=value)
    keys = b.shape[1]
    if keys == 0:
        raise ValueError(f"concatenation_attention needs at least one key, got b {tuple(b.shape)}")
    dtype = value.dtype
    wide = energy_dtype(dtype)
    a, b, value = a.to(wide), b.to(wide), value.to(wide)
    b, order = b.sort(dim=1, descending=True)
    value = value.gather(1, order[:, :, None].expand_as(value))  # (B, M, D), largest b first
    # How many keys have b_j > -a_i; searchsorted needs an ascending sequence.
    count = torch.searchsorted(-b.detach().contiguous(), a.detach().contiguous())  # (B, N)
    out = a[:, :, None] * _sum_of_first(value, count) + _sum_of_first(b[:, :, None] * value, count)
    return (out / keys).to(dtype)


def _sum_of_first(x: Tensor, count: Tensor) -> Tensor:
    """Sum of the first ``count[b, i]`` rows of ``x[b]`` (M, D), as (B, N, D)."""
    sums = torch.nn.functional.pad(x.cumsum(dim=1), (0, 0, 1, 0))  # (B, M + 1, D): of 0 to M rows
    return sums.gather(1, count[:, :, None].expand(-1, -1, x.shape[2]))
