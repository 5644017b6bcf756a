"""Compare what checkpoints hold."""

import torch


def equal(one, other):
    """Whether two nests of dicts and lists hold the same tensors and numbers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if torch.is_tensor(one) else one == other
