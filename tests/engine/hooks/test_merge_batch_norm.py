"""One set of BatchNorm statistics for all processes."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from danseg.engine.hooks import MergeBatchNormHook, merge_batch_norm
from danseg.errors import UserError


def test_merged_statistics_are_those_of_all_images(monkeypatch):
    torch.manual_seed(0)
    images = [torch.randn(4, 3, 8, 8) + 2, 3 * torch.randn(4, 3, 8, 8) - 1]  # one batch per rank
    ranks = [nn.BatchNorm2d(3, momentum=1.0) for _ in images]
    for layer, batch in zip(ranks, images, strict=True):
        layer(batch)
        layer.running_var.copy_(batch.var(dim=(0, 2, 3), unbiased=False))

    merged = nn.Sequential(nn.BatchNorm2d(3))
    merged[0].load_state_dict(ranks[0].state_dict())
    mean = torch.stack([r.running_mean for r in ranks]).double().mean(0)
    # The values that the other rank contributes to the two reductions.
    others = iter(
        [ranks[1].running_mean.double(), ranks[1].running_var + (ranks[1].running_mean - mean) ** 2]
    )
    monkeypatch.setattr(merge_batch_norm, "get_dist_info", lambda: (0, 2))
    monkeypatch.setattr(merge_batch_norm.torch_dist, "all_reduce", lambda values: values.add_(next(others)))
    merge_batch_norm.average_batch_norm(merged)

    everything = torch.cat(images)
    assert torch.allclose(merged[0].running_mean, everything.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(merged[0].running_var, everything.var(dim=(0, 2, 3), unbiased=False), rtol=1e-4)


def test_statistics_that_agree_stay_as_they_are(monkeypatch):
    layer = nn.BatchNorm2d(3)
    layer(1000 + torch.randn(4, 3, 8, 8))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    monkeypatch.setattr(merge_batch_norm, "get_dist_info", lambda: (0, 3))
    monkeypatch.setattr(merge_batch_norm.torch_dist, "all_reduce", lambda values: values.mul_(3))
    merge_batch_norm.average_batch_norm(layer)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_each_process_goes_on_with_its_own(monkeypatch):
    """After what it is merged for; and so does a training that is resumed."""
    monkeypatch.setattr(merge_batch_norm, "average_batch_norm", lambda layer: layer.running_mean.add_(1))
    layer, hook, own = nn.BatchNorm2d(3), MergeBatchNormHook(), torch.arange(3.0)
    layer.running_mean.copy_(own)
    with hook.merged(layer):
        assert torch.equal(layer.running_mean, own + 1)
    assert torch.equal(layer.running_mean, own)

    other = torch.cat([own + 5, torch.ones(3)])
    monkeypatch.setattr(merge_batch_norm, "all_gather_object", lambda one: [one, other])
    hook.gather(layer)
    checkpoint, weights = {"optimizer": {}}, {}
    hook.before_save_checkpoint(None, checkpoint)
    hook.before_save_checkpoint(None, weights)
    assert len(checkpoint["batch_norms"]) == 2 and not weights

    resumed, runner = MergeBatchNormHook(), SimpleNamespace(model=nn.BatchNorm2d(3), iter=1)
    monkeypatch.setattr(merge_batch_norm, "get_dist_info", lambda: (1, 2))
    monkeypatch.setattr(merge_batch_norm, "get_rank", lambda: 1)
    resumed.after_load_checkpoint(None, checkpoint)
    resumed.before_train(runner)
    assert torch.equal(runner.model.running_mean, own + 5)

    resumed.after_load_checkpoint(None, {"batch_norms": [torch.ones(8)] * 2})
    with pytest.raises(UserError, match="8 BatchNorm statistics for process 1, and this network has 6"):
        resumed.before_train(runner)
    hook.gather(nn.Conv2d(1, 1, 1))  # has none


def test_statistics_that_agree_are_not_stored_apart(monkeypatch):
    monkeypatch.setattr(merge_batch_norm, "all_gather_object", lambda one: [one, one])
    hook, checkpoint = MergeBatchNormHook(), {"optimizer": {}}
    hook.gather(nn.BatchNorm2d(3))
    hook.before_save_checkpoint(None, checkpoint)
    assert checkpoint == {"optimizer": {}}
