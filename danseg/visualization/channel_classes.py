"""What the channels of a feature map stand for: the class that each one serves, the strongest one at a cell.

Channels differ in size. They are compared by how far they lie above their own mean, in standard deviations.
"""

import torch
from torch import Tensor


def standards(features: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Every channel's mean over some cells, and the factor that standardises its distance from it.

    Args:
        features: ``(C, h, w)``.
        inside: ``(h, w)`` bool, the cells that count, at least one.

    Returns:
        Two ``(C,)``, at least float32. The second one is the inverse of the standard deviation; 0 for a
        channel that is the same everywhere.
    """
    of_cells = _wide(features)[:, inside]  # (C, n)
    mean, spread = of_cells.mean(1), of_cells.std(1, correction=0)
    # The rounding of a mean makes a constant channel seem to vary.
    varies = spread > 1e-5 * of_cells.abs().amax(1)
    return mean, torch.where(varies, 1 / spread, torch.zeros_like(spread))


def standardised(features: Tensor, inside: Tensor) -> Tensor:
    """Every channel less its mean over some cells, divided by its standard deviation there.

    Args:
        features, inside: as for :func:`standards`.

    Returns:
        ``(C, h, w)``, at least float32; 0 for a channel that is the same everywhere.
    """
    mean, factor = standards(features, inside)
    return (_wide(features) - mean[:, None, None]) * factor[:, None, None]


def _wide(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))


def classes_of_channels(features: Tensor, labels: Tensor) -> Tensor:
    """The class that each channel serves: the one in whose cells the standardised channel is largest.

    Args:
        features: ``(C, h, w)``.
        labels: ``(h, w)`` class ids, long; cells with a negative one do not count.

    Returns:
        ``(C,)`` class ids, long; -1 for a channel that is the same everywhere. With a single class in the
        picture, all channels serve it.
    """
    inside = labels >= 0
    present, place = labels[inside].unique(return_inverse=True)
    values = standardised(features, inside)[:, inside]  # (C, n)
    members = torch.nn.functional.one_hot(place, len(present)).to(values)  # (n, K)
    means = values @ (members / members.sum(0))  # (C, K)
    return torch.where(values.any(1), present[means.argmax(1)], -1)


def strongest_channel(features: Tensor, of_channels: tuple[Tensor, Tensor], cell: tuple[int, int]) -> int:
    """The channel that lies farthest above its mean in a cell (row, column), in standard deviations.

    Args:
        features: ``(C, h, w)``.
        of_channels: their :func:`standards`.
        cell: any cell; that of a pixel at the edge may have its centre in the padding.
    """
    mean, factor = of_channels
    row, column = cell
    return int(((_wide(features[:, row, column]) - mean) * factor).argmax())
