"""Whether a model is being exported, and the loop that exported operators run.

An operator of danseg's is one opaque call. A file cannot hold it, for it has to run where danseg is not
installed. So while a model is exported, the functions of :mod:`danseg.ops` compute with PyTorch's own
operators alone. What takes much memory stays a loop over blocks, so that a file, too, never holds the map of
all pairs:

* ``torch.export``, and the ONNX exporter that stands on it, keep PyTorch's ``while_loop``; :func:`stacked`
  makes one;
* ``torch.jit.trace``, and the older ONNX exporter that stands on it, keep the loops of scripted functions.

Both become ONNX's Loop. (``scan`` would copy a little less, but OpenVINO 2026.4 cannot read what becomes of
it.)
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor


def exporting() -> bool:
    """Whether the code runs to be recorded for a file: by torch.export, torch.onnx.export or torch.jit.trace.

    It is False in eager mode, under ``torch.compile``, and while :func:`operators_kept`.
    """
    return (torch.jit.is_tracing() and not _KEPT.get()) or _under_torch_export()


_KEPT = ContextVar("operators kept", default=False)


@contextlib.contextmanager
def operators_kept() -> Iterator[None]:
    """Leave danseg's operators whole in what ``torch.jit`` traces here, for whoever keeps no file of it."""
    token = _KEPT.set(True)
    try:
        yield
    finally:
        _KEPT.reset(token)


# PyTorch before 2.7 does not tell: there torch.export keeps the operators.
_under_torch_export: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)


def as_data(*sizes: int | Tensor) -> tuple[int, ...]:
    """Sizes as if they were data, of which ``torch.export`` knows only that they are at least 1.

    It looks for cases in whatever follows from the input's sizes: whether a formula is 1, or equals another
    one. So a file would be for some sizes alone, or its export would take minutes.
    """
    if torch.jit.is_tracing():
        return sizes  # type: ignore[return-value]  # it has sizes as tensors
    tensors = (
        size if isinstance(size, Tensor) else torch.scalar_tensor(size, dtype=torch.int64) for size in sizes
    )
    numbers = [tensor.item() for tensor in tensors]
    for number in numbers:
        torch._check(number >= 1)
    return tuple(numbers)  # type: ignore[arg-type]


@cache
def scripted(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` in TorchScript, whose loops ``torch.jit.trace`` keeps."""
    return torch.jit.script(function)


def stacked(count: int, block: Callable[[Tensor], Tensor], out: Tensor) -> Tensor:
    """``out`` with its first ``count`` entries set to ``block(0)``, ``block(1)``, ..., for ``torch.export``.

    Args:
        count: a number that the exporter does not know, such as one that follows from an image's size.
        block: computes an entry from its index, (1,) int64. It may read any tensors.
        out: has room for the entries, (T, ...) with T of at least ``count``. T has to be 2 or more for every
            input, or come by :func:`as_data`: the exporter asks whether it is 1, and writes for that case.
    """
    from torch._higher_order_ops.while_loop import while_loop

    number = torch.scalar_tensor(count, dtype=torch.int64, device=out.device)  # loops do not take all numbers

    def unfinished(index: Tensor, out: Tensor) -> Tensor:
        return index < number

    def step(index: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        one = index.reshape(1)
        return index + 1, out.index_put((one,), block(one))

    start = torch.zeros((), dtype=torch.int64, device=out.device)
    return while_loop(unfinished, step, (start, out))[1]
