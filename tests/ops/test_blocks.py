"""The memory budget of blocks, and that the operators keep to it."""

import sys

import pytest
import torch

from danseg.ops import attention, criss_cross_attention
from danseg.ops.blocks import block_bytes, cached_bytes

MIB = 2**20


CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_a_block_is_a_share_of_the_operands_and_large_enough_to_be_fast():
    assert block_bytes(0, CPU) == block_bytes(24 * MIB, CPU) == 4 * MIB
    assert block_bytes(60 * MIB, CPU) == block_bytes(60 * MIB, CPU, alive=2) == 10 * MIB
    assert block_bytes(800 * MIB, CPU) == 24 * MIB
    assert block_bytes(800 * MIB, CPU, alive=2) == 12 * MIB


def test_blocks_are_larger_on_a_gpu():
    assert block_bytes(0, GPU) == cached_bytes(GPU) == 64 * MIB
    assert block_bytes(100 * MIB, GPU) == 100 * MIB
    assert block_bytes(8000 * MIB, GPU) == 256 * MIB
    assert block_bytes(8000 * MIB, GPU, alive=2) == 128 * MIB


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("operator", "shapes"),
    [
        (attention, [(3, 12, 2), (3, 5, 2), (3, 5, 7)]),
        (criss_cross_attention, [(3, 2, 4, 5), (3, 2, 4, 5), (3, 7, 4, 5)]),
    ],
)
def test_operators_ask_for_a_share_of_one_entrys_operands(operator, shapes, dtype, monkeypatch):
    asked = []

    def recorded(operand_bytes: int, *others) -> int:
        asked.append(operand_bytes)
        return block_bytes(operand_bytes, *others)

    monkeypatch.setattr(sys.modules[operator.__module__], "block_bytes", recorded)
    inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    out = operator(*inputs)
    out.sum().backward()
    wide = 8 if dtype == torch.float64 else 4  # 16-bit energies are held in float32
    operands = sum(t[0].numel() for t in (*inputs, out)) * wide
    assert asked == [operands, operands]  # forward and backward
