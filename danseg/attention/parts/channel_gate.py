"""What modules share that multiply every channel by a factor of its own."""

from torch import Tensor, nn

from danseg.attention.parts.pooling import wide_mean
from danseg.attention.parts.views import ShowsAttention, View, at_once


class ChannelGate(ShowsAttention, nn.Module):
    """``out_c = gate_c(x) · x_c``, with the gate of a subclass."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        return x * self._gate(x)

    def _gate(self, x: Tensor) -> Tensor:
        """The factors (B, C, 1, 1) in the dtype of ``x``, which it checks."""
        raise NotImplementedError

    def attention_views(self) -> tuple[View, ...]:
        return (View("channels", at_once(lambda x: as_row(self._gate(x))), values="gate"),)

    def without_attention(self, x: Tensor, out: Tensor) -> Tensor:
        return x * wide_mean(self._gate(x), 1)


def as_row(gate: Tensor) -> Tensor:
    """(B, C, 1, 1), one number a channel, as the single row (B, 1, C) of a view of channels."""
    return gate.flatten(1).unsqueeze(1)
