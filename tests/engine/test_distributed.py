"""Deciding together and merging BatchNorm statistics; whole two-process runs are in tests/tools."""

import pytest
import torch
from torch import nn

from danseg.engine import distributed
from danseg.errors import UserError


def test_one_process_just_works_or_raises():
    assert distributed.on_rank_zero(lambda: 3) == 3
    with pytest.raises(UserError, match="broken"):
        distributed.on_rank_zero(lambda: (_ for _ in ()).throw(UserError("broken")))


def test_missing_launcher_variables_are_named(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="RANK.*torchrun"), distributed.process_group("pytorch"):
        pass


def test_merged_statistics_are_those_of_all_images(monkeypatch):
    torch.manual_seed(0)
    images = [torch.randn(4, 3, 8, 8) + 2, 3 * torch.randn(4, 3, 8, 8) - 1]  # one batch a rank
    ranks = [nn.BatchNorm2d(3, momentum=1.0) for _ in images]
    for layer, batch in zip(ranks, images, strict=True):
        layer(batch)
        layer.running_var.copy_(batch.var(dim=(0, 2, 3), unbiased=False))

    merged = nn.Sequential(nn.BatchNorm2d(3))
    merged[0].load_state_dict(ranks[0].state_dict())
    mean = torch.stack([r.running_mean for r in ranks]).double().mean(0)
    # What the other rank contributes to the two reductions.
    others = iter(
        [ranks[1].running_mean.double(), ranks[1].running_var + (ranks[1].running_mean - mean) ** 2]
    )
    monkeypatch.setattr(distributed, "get_dist_info", lambda: (0, 2))
    monkeypatch.setattr(distributed.torch_dist, "all_reduce", lambda values: values.add_(next(others)))
    distributed.average_batch_norm(merged)

    everything = torch.cat(images)
    assert torch.allclose(merged[0].running_mean, everything.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(merged[0].running_var, everything.var(dim=(0, 2, 3), unbiased=False), rtol=1e-4)


def test_statistics_that_agree_stay_as_they_are(monkeypatch):
    layer = nn.BatchNorm2d(3)
    layer(1000 + torch.randn(4, 3, 8, 8))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    monkeypatch.setattr(distributed, "get_dist_info", lambda: (0, 3))
    monkeypatch.setattr(distributed.torch_dist, "all_reduce", lambda values: values.mul_(3))
    distributed.average_batch_norm(layer)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
