"""Convolutions without TF32 for a while, by whichever of PyTorch's switches there is."""

from types import SimpleNamespace

import pytest
import torch

from danseg.engine.tf32 import convolves_in_tf32, exact_convolutions


@pytest.fixture(params=[None, "old"])
def switch(request, monkeypatch):
    """PyTorch's own switch, or that of a PyTorch before 2.9; changes are undone."""
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if request.param == "old":
        monkeypatch.setattr(torch.backends, "cudnn", SimpleNamespace(allow_tf32=True))
        yield torch.backends.cudnn
        return
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        yield torch.backends.cudnn


@pytest.mark.parametrize("before", [False, True])
def test_convolutions_are_exact_in_the_block_alone(switch, before):
    switch.allow_tf32 = before
    with pytest.raises(KeyError), exact_convolutions():
        assert not convolves_in_tf32()
        raise KeyError
    assert switch.allow_tf32 == convolves_in_tf32() == before


def test_the_environment_has_the_last_word(switch, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert not convolves_in_tf32()
