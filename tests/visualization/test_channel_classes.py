import pytest
import torch

from danseg.visualization.channel_classes import (
    classes_of_channels,
    standardised,
    standards,
    strongest_channel,
)

# Two rows of class 7, one of class 2, one that does not count.
LABELS = torch.tensor([[7, 7, 7], [7, 7, 7], [2, 2, 2], [-1, -1, -1]])


def features() -> torch.Tensor:
    """Channels made by hand: high on 2; high on 7 but small; constant; high in one cell of 7; low on 7."""
    x = torch.zeros(5, 4, 3)
    x[0, 2] = 100
    x[1, :2] = 0.01
    x[2] = 3.3
    x[3, 0, 1] = 50
    x[4, :2] = -5
    x[:, 3] = 1e6 * torch.tensor([1, 1, 0, 1, 1])[:, None]  # where nothing counts
    return x


def test_a_channel_serves_the_class_in_whose_cells_it_is_largest(device):
    found = classes_of_channels(features().to(device), LABELS.to(device))
    assert found.tolist() == [2, 7, -1, 7, 2]
    mixed = features()
    mixed[3, 2] = 40  # its mean on class 2 is larger than on 7, where one cell is larger still
    assert classes_of_channels(mixed, LABELS).tolist()[3] == 2


def test_size_and_offset_of_a_channel_do_not_matter():
    x = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = classes_of_channels(x, LABELS)
    moved = x * torch.tensor([1e-3, 1, 50, 7, 2, 1e4])[:, None, None] + 12
    assert torch.equal(classes_of_channels(moved, LABELS), found)
    assert len(found.unique()) == 2


def test_the_strongest_channel_of_a_cell():
    inside = LABELS >= 0
    assert strongest_channel(features(), standards(features(), inside), (0, 1)) == 3
    assert strongest_channel(features(), standards(features(), inside), (0, 0)) == 1
    assert strongest_channel(features(), standards(features(), inside), (2, 0)) in (
        0,
        4,
    )  # the same once they are standardised


def test_standardised_has_mean_0_and_deviation_1_where_it_counts(device):
    x = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0)).mul(9).add(4).to(device)
    x[5] = 0.1
    inside = (LABELS >= 0).to(device)
    found = standardised(x, inside)[:, inside]
    torch.testing.assert_close(found.mean(1), torch.zeros(6, device=device), atol=1e-6, rtol=0)
    spread = found.std(1, correction=0).tolist()
    assert spread == pytest.approx([1, 1, 1, 1, 1, 0], abs=1e-5)
    assert standardised(x.bfloat16(), inside).dtype == torch.float32


def test_in_a_picture_of_one_class_all_channels_serve_it():
    assert classes_of_channels(features()[:, :2], LABELS[:2]).tolist() == [-1, -1, -1, 7, -1]
