"""Settings and fixtures that every test shares."""

import os

# Before torch is imported. Tiny networks gain nothing from more, and threads stall on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def rendered_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A rendered Cityscapes tree: 6 training and 5 validation frames of 64 x 128. Do not write to it."""
    from danseg.datasets.rendered import render

    root = tmp_path_factory.mktemp("rendered") / "cityscapes"
    render(root, train=6, val=5, height=64, width=128)
    return str(root)
