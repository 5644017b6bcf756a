"""The learned factor, zero at the start, on an attention branch that is added to its input."""

import torch
from torch import Tensor, nn


class ResidualScale(nn.Module):
    """``x + scale · branch`` with a 0-d parameter ``scale`` that starts at 0.

    The parameter has no dimension, so it loads both mmseg's 0-d tensors and the ``[1]``
    tensors of the DANet and CCNet authors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """Add the scaled ``branch`` to ``x``, both of one shape; the result has the dtype of ``x``."""
        return torch.addcmul(x, branch.to(x.dtype), self.scale.to(x.dtype))
