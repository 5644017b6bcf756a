"""Random states survive a checkpoint and give the same numbers again."""

import random

import numpy as np
import torch

from danseg.engine.checkpoint import read_checkpoint
from danseg.engine.hooks.random_state import capture, restore


def draw(device):
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(2, device=device).tolist()


def test_numbers_continue_after_a_round_trip_through_a_file(tmp_path, device):
    np.random.randn()  # NumPy's generator now stores a second Gaussian number
    torch.save({"state_dict": {}, "random_states": [capture()]}, tmp_path / "a.pth")
    expected = draw(device)
    draw(device)
    restore(read_checkpoint(tmp_path / "a.pth")["random_states"][0])
    assert draw(device) == expected
