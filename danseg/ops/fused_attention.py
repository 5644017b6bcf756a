"""Softmax attention in 16 bits on a GPU, by the kernels behind PyTorch's ``scaled_dot_product_attention``.

Those kernels are made for queries, keys and values of one width, of 256 at most. Where values are wider than
queries, as in DANet (512 and 64), they are split into parts: each part is a head of its own, with the same
queries and keys. Its weights are then computed again, and still this is several times as fast as the one
kernel that takes such values whole; docs/performance_gpu.md has the figures. Narrower operands are padded
with zeros, which change no energy and no sum.

In order of speed on the GPU that was measured: cuDNN's kernel, FlashAttention-2, and the memory-efficient
kernel, which takes what the others refuse (float16 on older GPUs). cuDNN makes a plan for every new size, in
60 ms, so that it is asked in training, whose crops have one size, and for maps so large that the plan soon
pays. PyTorch leaves out those kernels that cannot repeat to the bit where
``torch.use_deterministic_algorithms(True)`` asks for that.
"""

import contextlib
import inspect
import threading
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

_WIDEST = 256  # queries that the kernels take
_PART = 128  # values of a head: the width at which the kernels are fastest
# The kernels read rows in pieces of 16 bytes.
_MULTIPLE = 8
# sdpa_kernel sets flags of the whole process and puts back what it found. Without turns, one thread would put
# back what another one had set, for good.
_TURN = threading.Lock()
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
_WITH_CUDNN = [SDPBackend.CUDNN_ATTENTION, *_KERNELS]
# Since PyTorch 2.6 the list can be an order. Before, PyTorch asks cuDNN last.
_ORDER: dict[str, Any] = (
    {"set_priority": True} if "set_priority" in inspect.signature(sdpa_kernel).parameters else {}
)
# Entries of a map for which cuDNN's plan pays within some twenty images: those of 128x256 positions, which
# come from whole frames of a camera.
_LARGE_MAP = (128 * 256) ** 2


def fused_kernels_take(query: Tensor, value: Tensor) -> bool:
    """Whether :func:`fused_attention` takes queries (B, N, C) and values (B, M, D) of these kinds."""
    return (
        query.is_cuda
        and (query.dtype == torch.float16 or (query.dtype == torch.bfloat16 and _knows_bfloat16(query)))
        and 0 < query.shape[2] <= _WIDEST
        and 0 not in query.shape
        and value.shape[2] > 0
    )


def _knows_bfloat16(x: Tensor) -> bool:
    """Whether the GPU multiplies bfloat16; older ones emulate it, and have no kernel here."""
    # The compiler cannot trace the question. It has no bfloat16 for older GPUs either.
    return torch.compiler.is_compiling() or torch.cuda.get_device_capability(x.device)[0] >= 8


def fused_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """``softmax(scale · query keyᵀ) value`` for (B, N, C), (B, M, C) and (B, M, D), as (B, N, D)."""
    parts, head, width = _heads(query.shape[2], value.shape[2])
    batch = len(query)
    training = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    large = query.shape[1] * key.shape[1] >= _LARGE_MAP
    kernels = _WITH_CUDNN if training or large else _KERNELS
    # (B, parts, N or M, head)
    query, key = (_rows(t, head)[:, None].expand(batch, parts, -1, head) for t in (query, key))
    values = _rows(value, parts * width).unflatten(2, (parts, width)).transpose(1, 2)
    # Compiled code has chosen its kernel when it was traced, which one thread does at a time.
    turn = contextlib.nullcontext() if torch.compiler.is_compiling() else _TURN
    # Autocast would cast bfloat16 to float16, or the reverse, where it is set to the other one.
    with turn, torch.autocast(query.device.type, enabled=False), sdpa_kernel(kernels, **_ORDER):
        out = scaled_dot_product_attention(query, key, _padded(values, head), scale=scale)[..., :width]
    if value.stride(1) == 1 and value.stride(2) != 1:  # a feature map's view: so is the result
        return out.transpose(2, 3).flatten(1, 2)[:, : value.shape[2]].mT
    return out.transpose(1, 2).flatten(2)[..., : value.shape[2]]


def _heads(channels: int, value_channels: int) -> tuple[int, int, int]:
    """Number of parts of the values, width of each head, and how many values are in each part."""
    widest = max(_rounded(channels), _PART)
    parts = -(-value_channels // widest)
    width = _rounded(-(-value_channels // parts))
    return parts, max(_rounded(channels), width), width


def _rounded(width: int) -> int:
    return -(-width // _MULTIPLE) * _MULTIPLE


def _rows(x: Tensor, width: int) -> Tensor:
    """``x`` padded to a width, in rows that start at multiples of 16 bytes, as the kernels read them."""
    x = _padded(x, width).contiguous()
    # Compiled code cannot ask for the offset, and copies inputs with an odd one itself.
    odd = not torch.compiler.is_compiling() and x.storage_offset() * x.element_size() % 16
    return x.clone() if odd else x


def _padded(x: Tensor, width: int) -> Tensor:
    return x if x.shape[-1] == width else pad(x, (0, width - x.shape[-1]))
