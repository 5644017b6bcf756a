"""Calls captured as CUDA graphs, beside other ways, for benchmarks on a GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import ways
from benchmarks.ways import Call, Figure, Question
from danseg.errors import UserError


@contextmanager
def _waiting_refused() -> Iterator[None]:
    """Raise where the host would wait for the GPU. A capture that fails there can end all use of the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class Graph:
    """A call on one tensor, captured as a CUDA graph; each replay copies the tensor in.

    Attributes:
        pool_bytes: memory that the graph keeps.
    """

    def __init__(self, call: Callable[[Tensor], Tensor], x: Tensor) -> None:
        if not x.is_cuda:
            raise UserError("CUDA graphs need a GPU")
        self._given, self._x = x, x.detach().clone().requires_grad_(x.requires_grad)
        stream = torch.cuda.Stream(x.device)
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):
            call(self._x)  # loads libraries and chooses kernels, which a capture does not allow
            with _waiting_refused():
                call(self._x)
        torch.cuda.synchronize(x.device)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved(x.device)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._out = call(self._x)
        torch.cuda.synchronize(x.device)
        torch.cuda.empty_cache()
        self.pool_bytes = torch.cuda.memory_reserved(x.device) - before

    @torch.no_grad()
    def __call__(self) -> Tensor:
        self._x.copy_(self._given)
        self._graph.replay()
        return self._out


def with_pools(
    question: Question, of_all: dict[str, Callable[[], Call]], device: torch.device, **how: Any
) -> list[Figure]:
    """:func:`benchmarks.ways.compare`; the memory of a captured graph is its pool's."""
    pools: dict[str, int] = {}

    def noting(name: str, make: Callable[[], Call]) -> Call:
        call = make()
        if isinstance(call, Graph):
            pools[name] = call.pool_bytes
        return call

    figures = ways.compare(
        question, {name: partial(noting, name, make) for name, make in of_all.items()}, device, **how
    )
    for figure in figures:
        if figure.extra_bytes is not None:
            figure.extra_bytes = pools.get(figure.way, figure.extra_bytes)
    return figures
