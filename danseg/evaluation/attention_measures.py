"""Numbers that say how attention is spread: over a picture, over channels, from place to place."""

import numpy as np


def as_shares(weights: np.ndarray) -> np.ndarray:
    """Rows (R, N) as shares of each row's sum, by their size if they are signed; equal ones of a row of 0."""
    sizes = np.abs(weights).astype(np.float64)
    sums = sizes.sum(1, keepdims=True)
    return np.where(sums > 0, sizes / np.where(sums > 0, sums, 1), 1 / weights.shape[1])


def entropy(shares: np.ndarray) -> np.ndarray:
    """The entropy of each row (R, N) of shares over that of equal ones: 1 all alike, 0 a single cell."""
    count = shares.shape[1]
    if count == 1:
        return np.ones(len(shares))
    logarithms = np.log(np.where(shares > 0, shares, 1))
    return -(shares * logarithms).sum(1) / np.log(count)


def mean_distance(shares: np.ndarray, centres: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """How far each position looks on average, weighted by the shares.

    Args:
        shares: (P, N), a row for each position.
        centres: (N, 2) x and y of the cells.
        positions: (P, 2) x and y.

    Returns:
        (P,), in the unit of the positions.
    """
    apart = np.linalg.norm(positions[:, None] - centres[None], axis=2)  # (P, N)
    return (shares * apart).sum(1)


def difference(shares: np.ndarray) -> float:
    """How much rows (R, N) of shares differ from their mean: 0 all alike, towards 1 each in its own place.

    It is the mean share that would have to move; nan for a single row, which has nothing to differ from.
    """
    if len(shares) < 2:
        return float("nan")
    return float(np.abs(shares - shares.mean(0)).sum(1).mean() / 2)
