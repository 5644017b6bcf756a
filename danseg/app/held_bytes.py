"""How many bytes of tensors and arrays an object keeps alive, whatever it is made of."""

import gc
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn


def held_bytes(thing: Any) -> int:
    """The bytes of all tensors and arrays that can be reached from an object, each storage once.

    Networks are left out: explorations share their weights.
    """
    seen: set[int] = set()
    storages: dict[int, int] = {}
    waiting = [thing]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (nn.Module, type, ModuleType)):
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            storage = one.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(one, np.ndarray):
            while isinstance(one.base, np.ndarray):
                one = one.base
            storages[one.ctypes.data] = one.nbytes
        else:
            waiting.extend(_referents(one))
    return sum(storages.values())


def _referents(one: Any) -> Iterable[Any]:
    if isinstance(one, FunctionType):  # its globals lead to the whole program
        return [cell.cell_contents for cell in one.__closure__ or () if not _is_empty(cell)]
    return gc.get_referents(one)


def _is_empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:
        return True
