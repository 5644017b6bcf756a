"""Exact pairwise-ReLU attention in O(N log N): the concatenation form of Non-local networks.

The weight of key j for query i is ``relu(a_i + b_j)``. The usual form concatenates the features of all
N x M pairs and then builds all N x M sums. But query i gives weight to the keys with ``b_j > -a_i`` alone.
Once the keys are sorted by ``b``, largest first, these keys stand at the front, and the sum over them is
``a_i Σ v_j + Σ b_j v_j``. That takes two prefix sums, each read at one place per query. Nothing is
approximated.
"""

import torch
from torch import Tensor

from danseg.ops.exporting import exporting
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
    if exporting():
        return _mean(a, b, value)
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
    if b.shape[1] == 0:
        raise ValueError(f"concatenation_attention needs at least one key, got b {tuple(b.shape)}")
    return _mean(a, b, value)


def _mean(a: Tensor, b: Tensor, value: Tensor) -> Tensor:
    dtype = value.dtype
    wide = energy_dtype(dtype)
    a, b, value = a.to(wide), b.to(wide), value.to(wide)
    b, order = b.sort(dim=1, descending=True)
    value = value.gather(1, order[:, :, None].expand_as(value))  # (B, M, D), largest b first
    count = _counted(a, b) if exporting() else _searched(a, b)  # (B, N)
    out = a[:, :, None] * _sum_of_first(value, count) + _sum_of_first(b[:, :, None] * value, count)
    return (out / b.shape[1]).to(dtype)


def _searched(a: Tensor, b: Tensor) -> Tensor:
    """How many keys have ``b_j > -a_i`` (B, N), for descending ``b``; searchsorted needs an ascending one."""
    return torch.searchsorted(-b.detach().contiguous(), a.detach().contiguous())


def _counted(a: Tensor, b: Tensor) -> Tensor:
    """The same by sorting the keys among the queries, for files: ONNX has no such search.

    It does not matter on which side of a query its equals stand: a key with ``b_j = -a_i`` has weight 0.
    """
    keys = b.shape[1]
    order = torch.cat([b, -a], dim=1).argsort(dim=1, descending=True)  # (B, M + N)
    place = torch.zeros_like(order).scatter(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return (order < keys).long().cumsum(dim=1).gather(1, place[:, keys:])


def _sum_of_first(x: Tensor, count: Tensor) -> Tensor:
    """Sum of the first ``count[b, i]`` rows of ``x[b]`` (M, D), as (B, N, D)."""
    sums = torch.nn.functional.pad(x.cumsum(dim=1), (0, 0, 1, 0))  # (B, M + 1, D): of 0 to M rows
    return sums.gather(1, count[:, :, None].expand(-1, -1, x.shape[2]))
