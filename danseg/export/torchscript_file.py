"""A network as TorchScript, by tracing; ``.pt``."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from danseg.export.description import FILE, Description


def write(network: nn.Module, example: Tensor, description: Description, part: Path) -> int:
    """Write a ``.pt``; see :meth:`danseg.export.formats.Format.write`."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes may be constants: verification finds those that are
        traced = torch.jit.trace(network, example, check_trace=False)
    part.write_bytes(traced.save_to_buffer(_extra_files={FILE: description.to_json()}))
    return 1
