"""Record the inputs of a running model's attention modules, and show their attention from these.

A module can be shown if it is a :class:`danseg.attention.parts.views.ShowsAttention`.
:func:`record_attention` keeps the inputs of such modules while the model runs. A map of a position, computed
from them later, costs one row of the attention matrix, never the whole N x N matrix.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

import danseg.attention
from danseg.attention.parts.views import ShowsAttention, View, attention_modules
from danseg.errors import StopsAllError
from danseg.io.words import listed

# The recordings that have begun and not yet ended in this thread or asynchronous task.
_RUNNING: ContextVar[tuple[object, ...]] = ContextVar("running recordings", default=())


class RecordedAttention:
    """An attention module and the last input it received."""

    def __init__(self, module: Any, x: Tensor) -> None:
        self.module = module
        self.x = x
        self._begun: dict[str, Callable[[Sequence[tuple[int, int]]], Tensor]] = {}
        self._lock = Lock()

    @property
    def map_size(self) -> tuple[int, int]:
        """(height, width) of the module's feature map."""
        height, width = self.x.shape[2:]
        return height, width

    @property
    def scale(self) -> float | None:
        """The branch's learned factor; None if the module has none."""
        scale = getattr(getattr(self.module, "gamma", None), "scale", None)
        return None if scale is None else scale.item()

    @property
    def views(self) -> dict[str, View]:
        """What there is to see, by the views' names; the first one stands for the module."""
        return {view.name: view for view in self.module.attention_views()}

    @torch.no_grad()
    def show(self, positions: Sequence[tuple[int, int]] = (), view: str = "") -> Tensor:
        """What a view shows, as :class:`danseg.attention.parts.views.View` says for its kind.

        What all maps of a view need is computed the first time and kept, with the weights that the module has
        then; of other kinds than ``"position"``, it is what the view shows. Threads can ask at the same time.

        Args:
            positions: (row, column) in the feature map, for a view of kind ``"position"`` alone.
            view: its name.
        """
        with self._lock:
            if view not in self._begun:
                self._begun[view] = self._begin(view)
        return self._begun[view](positions)

    def _begin(self, name: str) -> Callable[[Sequence[tuple[int, int]]], Tensor]:
        # In training mode, batch norms would add this pass to their statistics.
        module = copy.deepcopy(self.module) if self.module.training else self.module
        view = {one.name: one for one in module.attention_views()}[name]
        begun = view.begin(self.x)
        if view.kind == "position":
            return begun
        shown = begun()
        return lambda positions: shown


def require_attention(model: nn.Module) -> dict[str, Any]:
    """:func:`attention_modules`, of which there is at least one.

    Raises:
        StopsAllError: there is none, whatever the picture.
    """
    modules = attention_modules(model)
    if not modules:
        raise StopsAllError(
            f"{_named(model)} has no attention to show; these modules have: {', '.join(_classes())}"
        )
    return modules


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, RecordedAttention]]:
    """Keep the inputs of the model's attention modules while the model runs.

    Only what runs in the thread (or asynchronous task) that opened the block is recorded. Several threads
    can record the same model, and blocks can be nested.

    Yields:
        A dict, empty at first. When the model has run inside the ``with`` block, it holds the last input of
        each module of :func:`attention_modules` that ran, by the module's path. It stays valid after the
        block, which removes the hooks at its end.

    Raises:
        StopsAllError: no module of the model can be recorded, or the block ends and none of them ran.

    Example::

        with record_attention(model) as recorded:
            model(images)
        rows = recorded["decode_head.pam"].show([(3, 7)])   # (B, 1, H, W)
    """
    modules = require_attention(model)
    recorded: dict[str, RecordedAttention] = {}
    this, handles = object(), []

    def watch(path: str, module: Any) -> None:
        # A head that is itself the attention module names the child that gets the module's input: mmseg calls
        # a head's ``forward``, which calls no hook.
        entry = module.attention_entry

        # PyTorch adds a hook and then notes that it takes named arguments. A thread that runs in between
        # gives it none.
        def hook(running: nn.Module, args: tuple, named: dict | None = None) -> None:
            # Compiled code would go on calling the hook when the block has ended.
            if torch.compiler.is_compiling():
                return
            # A copy of the model has copies of the hooks, but other modules.
            if running is entry and this in _RUNNING.get():
                x, *_ = (*args, *(named or {}).values())
                # A copy, because what runs later may change the feature map in place.
                recorded[path] = RecordedAttention(module, x.detach().clone())

        handles.append(entry.register_forward_pre_hook(hook, with_kwargs=True))

    token = _RUNNING.set((*_RUNNING.get(), this))
    try:
        for path, module in modules.items():
            watch(path, module)
        yield recorded
    finally:
        _RUNNING.reset(token)
        for handle in handles:
            handle.remove()
    if not recorded:
        raise StopsAllError(
            f"none of the modules that record attention ran: {listed(modules)}. Run the model itself inside "
            "the block, in its thread and not compiled; auxiliary heads run in training only"
        )


def _classes() -> list[str]:
    """The names of danseg's modules whose attention can be shown."""
    made = {name: getattr(danseg.attention, name) for name in danseg.attention.__all__}
    return [name for name, one in made.items() if issubclass(one, ShowsAttention)]


def _named(model: Any) -> str:
    """What to call a model in messages: a segmentor by its heads, which most often hold the attention."""
    head = getattr(model, "decode_head", model)
    heads = head if isinstance(head, nn.ModuleList) else [head]
    return " + ".join(type(one).__name__ for one in heads)
