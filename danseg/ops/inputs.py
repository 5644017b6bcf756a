"""Checks of the operators' inputs, and the dtype of their energies."""

import torch
from torch import Tensor


def energy_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the energies for inputs in ``dtype``: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def check_alike(operator: str, query: Tensor, key: Tensor, value: Tensor) -> None:
    """Refuse inputs of different dtypes or devices, and inputs that are not floating point.

    Raises:
        ValueError: naming the operator, what it got, and the fix.
    """
    if not query.dtype == key.dtype == value.dtype or not query.is_floating_point():
        raise ValueError(
            f"{operator} needs one floating-point dtype, got query {query.dtype}, key {key.dtype}, "
            f"value {value.dtype}; cast them with .to(dtype)"
        )
    if not query.device == key.device == value.device:
        raise ValueError(
            f"{operator} needs one device, got query on {query.device}, key on {key.device}, "
            f"value on {value.device}"
        )
