"""The core of the benchmarks and of ``tools/latency.py`` must see what is known to be there."""

import os
import time

import pytest
import torch

from danseg.engine import measuring
from danseg.errors import UserError
from measured_calls import (
    die,
    hold,
    peak_after_a_larger_one,
    peak_of_freed_allocation,
    raise_,
    raise_for_a_user,
)

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [16, 64])
def test_extra_peak_sees_a_known_allocation_that_is_gone_afterwards(megabytes):
    peak = measuring.in_subprocess(peak_of_freed_allocation, megabytes)
    assert peak == pytest.approx(megabytes * measuring.MIB, abs=4 * measuring.MIB)


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="the peak can be reset on Linux alone"
)
def test_extra_peak_forgets_an_earlier_larger_peak():
    peak = measuring.in_subprocess(peak_after_a_larger_one)
    assert peak == pytest.approx(16 * measuring.MIB, abs=4 * measuring.MIB)


def test_in_subprocess_reports_how_a_measurement_ended():
    with pytest.raises(measuring.MeasurementError, match="ValueError: no such size"):
        measuring.in_subprocess(raise_)
    with pytest.raises(UserError, match="^take a smaller one$"):
        measuring.in_subprocess(raise_for_a_user)
    with pytest.raises(measuring.MeasurementError, match="status -9, most likely for want of memory"):
        measuring.in_subprocess(die)


def test_alternate_takes_turns_and_times_each_call():
    turns = []

    def call(name: str, seconds: float) -> None:
        turns.append(name)
        time.sleep(seconds)

    seconds = measuring.alternate([lambda: call("a", 0.02), lambda: call("b", 0.0)], repeats=3, device=CPU)
    assert turns == ["a", "b"] * 3
    assert [len(row) for row in seconds] == [3, 3]
    assert min(seconds[0]) >= 0.02
    assert min(seconds[1]) < 0.02


@pytest.mark.slow
def test_process_peak_counts_libraries_and_what_is_gone():
    less, more = (measuring.in_subprocess(hold, megabytes, fresh=True) for megabytes in (1, 65))
    assert less > 50 * measuring.MIB
    assert more - less == pytest.approx(64 * measuring.MIB, abs=16 * measuring.MIB)
