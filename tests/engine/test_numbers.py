"""What is a number."""

import math

import numpy as np
import pytest

from danseg.engine.numbers import is_number


@pytest.mark.parametrize("value", [0, -1, 2.5, math.nan, math.inf, np.float64(1)])
def test_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize("value", [True, False, None, "1", [1], 1j, np.array(1.0)])
def test_others(value):
    assert not is_number(value)
