"""A network as TorchScript, by tracing; ``.pt``."""

import warnings
from pathlib import Path

import torch

from danseg.export.description import FILE
from danseg.export.formats import Task


def write(task: Task, part: Path) -> int:
    """Write a ``.pt``; see :meth:`danseg.export.formats.Format.write`."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes may be constants: verification finds those that are
        traced = torch.jit.trace(task.network, task.example, check_trace=False)
    part.write_bytes(traced.save_to_buffer(_extra_files={FILE: task.description.to_json()}))
    return 1
