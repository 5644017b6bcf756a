"""Ways to compute softmax attention: danseg's, the plain form, and PyTorch's kernels in their arrangements.

PyTorch's kernels are made for queries, keys and values of one width. Wider values go to them whole, where a
kernel takes that, or in parts. A part is a head of its own, with the same queries and keys: either padded
with zeros to the part's width and not copied (``4x128 padded``), or at their own width, with a copy for each
part (``4x128 repeated``).
"""

import re
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

from danseg.engine.measuring import MIB, MeasurementError
from danseg.ops import attention
from danseg.ops.inputs import energy_dtype

# From queries (B, N, C), keys (B, M, C), values (B, M, D) and a factor on the energies to (B, N, D).
Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
# The same with heads: (B, h, N, C), (B, h, M, C), (B, h, M, D) to (B, h, N, D).
Kernel = Callable[[Tensor, Tensor, Tensor, float], Tensor]

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
ONE_WIDTH = ("flash",)  # take queries and values of one width alone
SIXTEEN_BITS = ("flash", "cuDNN")  # take no others
BLOCKS_MIB = (16, 32, 64, 128, 256)
PARTS = (64, 128, 256)
# Below this width of the values, kernels do not reach the device's rate.
WIDE_ENOUGH = 128


def danseg_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """danseg's operator, as its modules call it."""
    return attention(query, key, value, scale=scale)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The attention that mmseg's modules compute between their convolutions."""
    return (query * scale @ key.mT).softmax(dim=-1) @ value


def in_blocks(mebibytes: int) -> Attend:
    """danseg's blocks of matrix products, with at most so many energies in a block."""

    def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        row_bytes = key.shape[1] * energy_dtype(query.dtype).itemsize
        return attention(query, key, value, scale=scale, block_size=max(1, mebibytes * MIB // row_bytes))

    return attend


def in_parts(kernel: Kernel, width: int | None = None, padded: bool = False) -> Attend:
    """Attention by a kernel with heads, see above.

    Args:
        kernel: computes each head.
        width: of the values in one part, which divides theirs; None gives them whole.
        padded: whether queries and keys are padded to that width and shared, or repeated for each part.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        parts = value.shape[2] // width if width else 1
        values = value.contiguous().unflatten(2, (parts, -1)).transpose(1, 2)  # (B, parts, M, width)
        if padded:
            missing = width - query.shape[2]
            query, key = (pad(t, (0, missing)).contiguous() for t in (query, key))
            query, key = (t[:, None].expand(-1, parts, -1, -1) for t in (query, key))
        else:
            query, key = (t.contiguous()[:, None].repeat(1, parts, 1, 1) for t in (query, key))
        return kernel(query, key, values, scale).transpose(1, 2).flatten(2)  # (B, N, D)

    return attend


def sdpa(backend: str) -> Kernel:
    """One of the kernels behind PyTorch's ``scaled_dot_product_attention``.

    It raises MeasurementError with PyTorch's reasons for what the kernel does not take.
    """

    def kernel(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        with warnings.catch_warnings(record=True) as told, sdpa_kernel(BACKENDS[backend]):
            warnings.simplefilter("always")
            try:
                return scaled_dot_product_attention(query, key, value, scale=scale)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise MeasurementError(_reasons([str(w.message) for w in told]) or str(error)) from error

    return kernel


def _reasons(told: list[str]) -> str:
    """The reasons among PyTorch's warnings about kernels; those that were switched off are none."""
    lines = (re.sub(r"\s*\(?Triggered internally at .*", "", text, flags=re.DOTALL).strip() for text in told)
    kept = (line for line in lines if "disabled" not in line and "not used because" not in line)
    return "; ".join(dict.fromkeys(kept))


def uncompiled(channels: int, value_channels: int, dtype: torch.dtype, thorough: bool) -> dict[str, Attend]:
    """All ways but compiled ones, for queries and values of these widths.

    Args:
        channels: C of queries and keys.
        value_channels: D of the values.
        dtype: of all.
        thorough: whether to try every arrangement, or those alone that may be the fastest.
    """
    narrow = dtype.itemsize == 2
    one_width = value_channels <= max(WIDE_ENOUGH, channels)
    ways: dict[str, Attend] = {"danseg": danseg_attention, "plain": plain_attention}
    blocks = BLOCKS_MIB if thorough or not narrow else (64, 256)
    ways |= {f"danseg, blocks of {size} MiB": in_blocks(size) for size in blocks}
    for backend in BACKENDS:
        if thorough or (backend != "math" and (one_width or backend == "efficient")):
            ways[f"SDPA {backend}, whole"] = in_parts(sdpa(backend))
        if backend == "math" or (backend in SIXTEEN_BITS and not narrow):
            continue
        for width in _part_widths(channels, value_channels, thorough, backend):
            name = f"SDPA {backend}, {value_channels // width}x{width}"
            if width >= channels:
                ways[f"{name} padded"] = in_parts(sdpa(backend), width, padded=True)
            if backend not in ONE_WIDTH:
                ways[f"{name} repeated"] = in_parts(sdpa(backend), width)
    return ways


def _part_widths(channels: int, value_channels: int, thorough: bool, backend: str) -> list[int]:
    if thorough:
        return [width for width in PARTS if width < value_channels]
    likely = max(WIDE_ENOUGH, channels)
    # The efficient kernel is the slowest of the three: whole values show that at every size.
    return [likely] if likely < value_channels and backend != "efficient" else []


def compiled(value_channels: int, compiler: str) -> dict[str, Attend]:
    """The plain form and FlexAttention by ``torch.compile``.

    Args:
        value_channels: D of the values.
        compiler: the ``backend`` of ``torch.compile``.
    """
    compile_once = partial(torch.compile, dynamic=False, backend=compiler)
    return {"plain, compiled": compile_once(plain_attention), **flex(value_channels, compile_once)}


def flex(value_channels: int, compile_it: Callable[[Callable], Callable]) -> dict[str, Attend]:
    """PyTorch's FlexAttention, which is made to be compiled, without a change of the scores."""
    from torch.nn.attention.flex_attention import flex_attention  # imports the compiler

    function = compile_it(flex_attention)

    def kernel(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return function(query, key, value, scale=scale)

    width = min(WIDE_ENOUGH, value_channels)
    return {f"FlexAttention, {value_channels // width}x{width} repeated": in_parts(kernel, width)}
