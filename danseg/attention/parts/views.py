"""What the attention of a module can be shown as: one interface for all modules, whatever kind they have."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

KINDS = ("position", "everywhere", "channels", "branches")
#: Kinds that lie over the picture.
MAPS = ("position", "everywhere")
VALUES = ("shares", "gate", "weights")


@dataclass(frozen=True)
class View:
    """One thing that a module's attention can be shown as.

    Attributes:
        kind: what ``begin(x)`` returns for the module's input ``x`` (B, C, H, W):

            - ``"position"``, where a position looks: a function of P (row, column) pairs that gives
              (B, P, h, w), and costs P rows of the map, never the whole;
            - ``"everywhere"``, maps that are the same for all positions: a function without arguments that
              gives (B, M, h, w);
            - ``"channels"``, weights of channels: such a function that gives (B, R, C), with one row for all
              channels alike, or one for each of R = C;
            - ``"branches"``, weights of branches: such a function that gives (B, S, C) for S branches of C
              channels.

            All are at least float32. The grid (h, w) covers the same picture as (H, W), and may be coarser.
        begin: does once for an input what all its maps need, such as keys; what it returns can be called as
            often as there are questions, and looks at the weights that the module had then.
        name: which of the module's views this is, such as ``"head 3"``; the first one, which stands for the
            module, has none.
        values: what the numbers are. ``"shares"`` are at least 0 and sum to 1: of kind ``"position"`` and
            ``"everywhere"`` over each map, of ``"channels"`` over each row, of ``"branches"`` over all
            branches.
            ``"gate"``: numbers from 0 to 1, each for itself, as a sigmoid's. ``"weights"``: any numbers, as a
            dot product's.
        parts: what the M maps, R rows or S branches are called; empty if a number says it all.

    Raises:
        ValueError: for another kind, or other values.
    """

    kind: str
    begin: Callable[[Tensor], Callable[..., Tensor]]
    name: str = ""
    values: str = "shares"
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, value, allowed in (("kind", self.kind, KINDS), ("values", self.values, VALUES)):
            if value not in allowed:
                raise ValueError(f"a view's {what} must be one of {', '.join(allowed)}, got {value!r}")


def at_once(shown: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Callable[[], Tensor]]:
    """The ``begin`` of a view without positions, from a function that gives all there is to see.

    It is computed once, as the module computes it, and given in at least float32.
    """

    def begin(x: Tensor) -> Callable[[], Tensor]:
        all_of_it = shown(x)
        all_of_it = all_of_it.to(torch.promote_types(all_of_it.dtype, torch.float32))
        return lambda: all_of_it

    return begin


class ShowsAttention:
    """An attention module, or a head that is one itself, whose attention can be shown and switched off."""

    @property
    def attention_entry(self) -> Any:
        """The (child) module whose first input is the ``x`` of :meth:`attention_views`.

        A head names a child, for mmseg calls a head's ``forward``, which calls no hook.
        """
        return self

    @property
    def attention_exit(self) -> Any:
        """The (child) module whose output :meth:`without_attention` replaces."""
        return self

    def attention_views(self) -> tuple[View, ...]:
        """What there is to see, the view that stands for the module first; at least one."""
        raise NotImplementedError

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        """What ``attention_exit`` would give if the attention chose nothing.

        Without what the attention adds, where it adds; with the mean of each image's gates in place of the
        gates; with equal shares of all branches.

        Args:
            x: the input of ``attention_exit``.
            out: its output; the result has its shape and dtype.
        """
        raise NotImplementedError


def attention_modules(model: nn.Module) -> dict[str, Any]:
    """The model's modules whose attention can be shown, by their path in the model.

    What lies inside such a module is its own to show: it may run several times, on features of the module's.
    """
    found: dict[str, Any] = {}
    for path, one in model.named_modules():  # an outer module comes before those inside it
        inside = any(not outer or path.startswith(f"{outer}.") for outer in found)
        if isinstance(one, ShowsAttention) and not inside:
            found[path] = one
    return found
