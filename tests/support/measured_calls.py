"""Functions that tests measure in a process of its own, which has to be able to import them.

A module below ``tests`` it may not find: another package can be installed under that name.
"""

import os

import torch

from danseg.engine import measuring
from danseg.errors import UserError

CPU = torch.device("cpu")


def peak_of_freed_allocation(megabytes: int) -> int:
    def work() -> None:
        block = torch.ones(megabytes * measuring.MIB // 4)
        del block

    work_small = torch.ones(10)  # Warm-up: PyTorch's first tensor costs memory of its own.
    del work_small
    return measuring.extra_peak(work, CPU)


def peak_after_a_larger_one() -> int:
    torch.ones(128 * measuring.MIB // 4).sum()
    return peak_of_freed_allocation(16)


def raise_() -> None:
    raise ValueError("no such size")


def raise_for_a_user() -> None:
    raise UserError("take a smaller one")


def die() -> None:
    os.kill(os.getpid(), 9)


def hold(megabytes: int) -> int:
    torch.ones(megabytes * measuring.MIB // 4)
    return measuring.process_peak()
