"""What a module's attention does to the labels of a picture, in numbers and in words."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AttentionEffect:
    """What the attention of one module does to a picture's labels.

    Attributes:
        module: its path in the model.
        scale: the learned factor of the branch; None if the module has none.
        labels: (H, W) class ids without the attention.
        changed: share of the picture's pixels that have another label with it.
        largest_change: by how much the attention changes a logit at most, anywhere in the network's output.
        positions: P pairs (x, y) in pixels.
        with_attention, without: (P, C) logits of the classes at the positions.
    """

    module: str
    scale: float | None
    labels: np.ndarray
    changed: float
    largest_change: float
    positions: list[tuple[int, int]]
    with_attention: np.ndarray
    without: np.ndarray

    def summary(self) -> str:
        """One line: whether the branch's factor is 0 or negative, how many labels the attention changes."""
        return f"{self.module}{scale_in_words(self.scale)}: {self._in_words()}"

    def _in_words(self) -> str:
        if self.scale == 0:
            return "its attention does nothing, whatever its maps show"
        if self.largest_change == 0:
            return "its attention does nothing here: all logits are the same without it"
        if self.changed == 0:
            return (
                "without its attention no pixel has another label; a logit changes by "
                f"{self.largest_change:.2g} at most"
            )
        return f"without its attention {share_in_words(self.changed)} of the pixels have another label"


def scale_in_words(scale: float | None) -> str:
    """A branch's learned factor, in brackets, to stand behind its module's name; empty if it has none."""
    if scale is None:
        return ""
    return f" (γ = {scale:.3g}{', negative: what it gathers is subtracted' if scale < 0 else ''})"


def share_in_words(share: float) -> str:
    """A share from 0 to 1 in per cent; one that is not 0 does not look so."""
    return "less than 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"
