"""Switch a module's attention off while a model runs, everything else as it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def switched_off(model: nn.Module, path: str) -> Iterator[None]:
    """Inside the block, a module does what it would if its attention chose nothing.

    :meth:`danseg.attention.parts.views.ShowsAttention.without_attention` says what that is.

    Args:
        model: has hooks of the block's while it lasts, so that no other thread may run it.
        path: of one of :func:`danseg.visualization.attention_modules`.
    """
    module: Any = model.get_submodule(path)

    def replace(running: nn.Module, args: tuple, named: dict, out: Tensor) -> Tensor:
        x, *_ = (*args, *named.values())
        return module.without_attention(x, out)

    handle = module.attention_exit.register_forward_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
