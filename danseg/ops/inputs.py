"""Checks of the operators' inputs, and the dtype of their energies."""

import contextlib

import torch
from torch import Tensor

from danseg.ops.exporting import exporting


def energy_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the energies for inputs in ``dtype``: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Inside, autocast does not change the precision of products on the device of ``x``.

    A model that is exported computes in the precision that its tensors have. (PyTorch would record the block
    as a submodule, which ``torch.export.save`` refuses where sizes go in.)
    """
    return contextlib.nullcontext() if exporting() else torch.autocast(x.device.type, enabled=False)


def check_alike(operator: str, **tensors: Tensor) -> None:
    """Refuse inputs of different dtypes or devices, and inputs that are not floating point.

    Raises:
        ValueError: naming the operator, what it got, and the fix.
    """
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) > 1 or not dtypes.pop().is_floating_point:
        got = ", ".join(f"{name} {tensor.dtype}" for name, tensor in tensors.items())
        raise ValueError(f"{operator} needs one floating-point dtype, got {got}; cast them with .to(dtype)")
    check_one_device(operator, **tensors)


def check_one_device(operator: str, **tensors: Tensor) -> None:
    """Refuse inputs on different devices.

    Raises:
        ValueError: naming the operator and what it got.
    """
    if len({tensor.device for tensor in tensors.values()}) > 1:
        got = ", ".join(f"{name} on {tensor.device}" for name, tensor in tensors.items())
        raise ValueError(f"{operator} needs one device, got {got}; move them with .to(device)")
