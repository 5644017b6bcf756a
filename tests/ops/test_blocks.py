"""The memory budget of blocks, and that the operators keep to it."""

import sys

import pytest
import torch

from danseg.ops import attention, criss_cross_attention
from danseg.ops.blocks import block_bytes

MIB = 2**20


def test_a_block_is_a_share_of_the_operands_and_large_enough_to_be_fast():
    assert block_bytes(0) == block_bytes(24 * MIB) == 4 * MIB
    assert block_bytes(60 * MIB) == block_bytes(60 * MIB, alive=2) == 10 * MIB
    assert block_bytes(800 * MIB) == 24 * MIB
    assert block_bytes(800 * MIB, alive=2) == 12 * MIB


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

    def recorded(operand_bytes: int, *alive: int) -> int:
        asked.append(operand_bytes)
        return block_bytes(operand_bytes, *alive)

    monkeypatch.setattr(sys.modules[operator.__module__], "block_bytes", recorded)
    inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    out = operator(*inputs)
    out.sum().backward()
    wide = 8 if dtype == torch.float64 else 4  # 16-bit energies are held in float32
    operands = sum(t[0].numel() for t in (*inputs, out)) * wide
    assert asked == [operands, operands]  # forward and backward
