"""The number of images that one step of the optimiser sees."""

import pytest
from mmengine.config import Config

from danseg.engine.batch import total_batch


@pytest.mark.parametrize(
    ("config", "world_size", "total"),
    [
        (dict(train_dataloader=dict(batch_size=2)), 1, 2),
        (dict(train_dataloader=dict(batch_size=2)), 4, 8),
        (dict(train_dataloader=dict(batch_size=2), optim_wrapper=dict(accumulative_counts=4)), 3, 24),
        (dict(train_dataloader=dict(batch_size=2), optim_wrapper=dict(type="OptimWrapper")), 1, 2),
        (dict(train_dataloader=dict(batch_sampler=dict(type="BatchSampler", batch_size=5))), 2, 10),
        (dict(train_dataloader=None, optim_wrapper=None), 2, None),
        (dict(train_dataloader=dict(num_workers=0)), 2, None),
    ],
)
def test_processes_times_images_times_accumulated_iterations(config, world_size, total):
    assert total_batch(Config(config), world_size) == total
    assert total_batch(config, world_size) == total
