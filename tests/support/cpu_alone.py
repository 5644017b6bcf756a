"""Cases that only the CPU runs, so that a GPU runs those alone that differ there."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def cpu_alone(*values: Any) -> ParameterSet:
    """A case for ``parametrize`` that a test which takes ``device`` has on the CPU alone."""
    return pytest.param(*values, marks=pytest.mark.cpu_alone)


def one_on_gpu(cases: Iterable, key: Callable[[Any], Hashable] = lambda case: None) -> list:
    """Cases for ``parametrize``: all on the CPU, and on a GPU the first of each key, by default of all."""
    seen: set[Hashable] = set()
    found: list = []
    for case in cases:
        new = key(case) not in seen
        seen.add(key(case))
        values = case if isinstance(case, tuple) else (case,)
        found.append(case if new else cpu_alone(*values))
    return found
