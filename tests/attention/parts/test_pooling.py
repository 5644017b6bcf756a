"""Means of neighbours, with gradients, in every memory layout and on every device."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import avg_pool2d

import danseg
from danseg.attention.parts.pooling import mean_3x3


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_means_and_gradients_are_those_of_pytorch_on_the_cpu(stride, memory_format, device):
    x = torch.randn(2, 5, 7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    moved = x.detach().to(device).contiguous(memory_format=memory_format).requires_grad_()
    want, found = avg_pool2d(x, 3, stride, padding=1), mean_3x3(moved, stride)
    torch.testing.assert_close(found.cpu(), want)
    [want], [found] = (
        torch.autograd.grad(out.square().sum(), given) for out, given in ((want, x), (found, moved))
    )
    torch.testing.assert_close(found.cpu(), want)


def test_it_is_the_only_padded_mean():
    """PyTorch's own, with ``padding``, has a wrong gradient on a GPU in one memory layout."""
    files = {file.name: file.read_text() for file in Path(danseg.__file__).parent.rglob("*.py")}
    padded = [name for name, text in files.items() if "F.avg_pool" in text or "nn.AvgPool" in text]
    assert padded == ["pooling.py"]
